# shellcheck shell=bash
# What the entry scripts share: messages, the build folder, packages and toolchains. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
started=$(date +%s)

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf '\033[1;31merror:\033[0m %s\n' "$*" >&2; exit 1; }
elapsed() { local secs=$(($(date +%s) - started)); printf '%d min %02d s' $((secs / 60)) $((secs % 60)); }

# A build folder outside the checkout serves every clone on this machine.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lull/target}
tools_dir=$(dirname "$CARGO_TARGET_DIR")/tools
export PATH="$tools_dir/bin:$HOME/.cargo/bin:$PATH"
export npm_config_fund=false npm_config_audit=false npm_config_update_notifier=false

packages_build=(build-essential pkg-config)
packages_run=(bubblewrap perl-base unzip)
packages_desktop=(libwebkit2gtk-4.1-dev libayatana-appindicator3-dev librsvg2-dev libxdo-dev libssl-dev)
packages_test=(xvfb xauth xdotool dbus dbus-x11 webkit2gtk-driver chromium fonts-dejavu-core at-spi2-core e2fsprogs zip jq shellcheck procps)

# install_packages NAME...: installs what is missing of these Debian packages, or says what to install by hand.
install_packages() {
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    for program in cc pkg-config bwrap perl; do
      command -v "$program" >/dev/null || fail "this is not Debian or Ubuntu, so packages are yours to install. Debian calls them: $*"
    done
    return
  fi
  local missing=() name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "run as root once, or install these packages: ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
    || fail "apt-get could not install: ${missing[*]}"
}

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# Rust from rustup where it is recent enough, else Debian's own recent packages.
need_rust() {
  local wanted=1.95 found
  found=$(cargo --version 2>/dev/null | awk '{print $2}')
  if [ -n "$found" ] && at_least "$wanted" "$found"; then return; fi
  if apt-cache show cargo-web >/dev/null 2>&1; then
    install_packages rustc-web cargo-web
    export PATH="/usr/bin:$PATH"
    found=$(/usr/bin/cargo --version 2>/dev/null | awk '{print $2}')
    if [ -n "$found" ] && at_least "$wanted" "$found"; then return; fi
  fi
  fail "Rust $wanted or newer is needed (found: ${found:-none}). Install it from https://rustup.rs and start again"
}

need_node() {
  local wanted=20.19 found
  found=$(node --version 2>/dev/null | tr -d v)
  if [ -z "$found" ]; then
    install_packages nodejs npm
    found=$(node --version 2>/dev/null | tr -d v)
  fi
  if [ -z "$found" ] || ! at_least "$wanted" "$found"; then
    fail "Node.js $wanted or newer is needed to build the page (found: ${found:-none}). Install it from https://nodejs.org and start again"
  fi
}

# build_page: builds desktop-ui once per state of its sources.
build_page() {
  cd "$root/desktop-ui"
  if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    say "installing the page's packages"
    npm ci --no-progress --loglevel=error
  fi
  say "building the page"
  local log
  log=$(npm run --silent build 2>&1) || fail "the page could not be built: $log"
  cd "$root"
}

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds, or fails saying what it waited for.
wait_for() {
  local secs=$1 what=$2; shift 2
  local until=$(($(date +%s) + secs))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$until" ] || fail "waited $secs s for $what in vain"
    sleep 0.1
  done
}
