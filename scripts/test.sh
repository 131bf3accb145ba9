#!/usr/bin/env bash
# Installs what the checks need and runs all of them: formatting, lints, documents, unit, store, integration, whole-path,
# browser, window and tray tests. Nothing is skipped: what is missing is installed, or the run fails and says what to do.
#   --quick    leave out the window, the browser and the large-file run
set -euo pipefail
# shellcheck source=lib/machine.sh
. "$(dirname "$0")/lib/machine.sh"

quick=no
case "${1:-}" in
  --quick) quick=yes ;;
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  "") ;;
  *) fail "unknown option $1; try --help" ;;
esac

step_started=$started
step() {
  local now; now=$(date +%s)
  [ "$now" = "$step_started" ] || printf '    (%d s)\n' $((now - step_started)) >&2
  step_started=$now
  say "$*"
}

[ "$(uname -s)" = Linux ] || fail "the checks run on Debian or Ubuntu"
install_packages "${packages_build[@]}" "${packages_run[@]}" "${packages_desktop[@]}" "${packages_test[@]}"
need_rust
need_node
cd "$root"
build_page

step "scripts: shellcheck"
shellcheck -x -P scripts scripts/*.sh .ci/run

step "formatting"
cargo fmt --all --check

step "lints"
cargo clippy --locked --quiet --workspace --all-targets -- -D warnings

step "supply chain"
if ! cargo-deny --version 2>/dev/null | grep -q '0\.20\.2'; then
  CARGO_TARGET_DIR=$(dirname "$CARGO_TARGET_DIR")/tools-target \
    cargo install --quiet --locked --root "$tools_dir" --no-default-features --version 0.20.2 cargo-deny
fi
cargo-deny --log-level error check bans licenses sources

step "coordinators with a fault built in, for the tests that must find it"
scripts/fault-builds.sh

step "building everything"
cargo build --locked --quiet --workspace --all-targets

step "tests (the window under Xvfb, the tray on a session bus of its own)"
export LULL_BIN_DIR=$CARGO_TARGET_DIR/debug
packages=(--workspace)
[ $quick = no ] || packages+=(--exclude lull-desktop)
xvfb-run -a -s "-screen 0 1280x800x24 -noreset" dbus-run-session -- \
  cargo test --locked --quiet "${packages[@]}" --no-fail-fast

step "the page: types, lint, unit tests"
cd "$root/desktop-ui"
npm run --silent check
npm run --silent lint
npm test --silent
if [ $quick = no ]; then
  step "the page in a browser, on the real coordinator and worker"
  npm run --silent e2e
fi
cd "$root"

if [ $quick = no ]; then
  step "a large file there and back"
  "$LULL_BIN_DIR/lull-bench" large-file --size-mib 2048
fi

step "documents: rustdoc"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --no-deps --document-private-items

step "the quickstart"
"$root/scripts/quickstart.sh" --exit

step "all checks passed in $(elapsed)"
