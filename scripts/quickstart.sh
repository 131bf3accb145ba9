#!/usr/bin/env bash
# From a fresh clone to a job that ran: installs, builds, starts a coordinator and a worker, runs a real job on the
# worker, prints its output and the address of the page. Ctrl-C ends everything it started.
#   --exit     stop coordinator and worker when the job has ended, instead of leaving them running
set -euo pipefail
# shellcheck source=lib/machine.sh
. "$(dirname "$0")/lib/machine.sh"

here=$PWD
keep_running=yes
case "${1:-}" in
  --exit) keep_running=no ;;
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  "") ;;
  *) fail "unknown option $1; try --help" ;;
esac
[ -t 1 ] || keep_running=no

[ "$(uname -s)" = Linux ] || fail "this script is for Linux; on Windows run scripts/quickstart.ps1"
install_packages "${packages_build[@]}" "${packages_run[@]}"
need_rust
need_node
build_page
say "building coordinator, worker and the lull command (a few minutes the first time)"
cargo build --locked --quiet --manifest-path "$root/Cargo.toml" -p lull-coordinator -p lull-worker -p lull-cli
bin=$CARGO_TARGET_DIR/debug

data=$(mktemp -d "${TMPDIR:-/tmp}/lull-quickstart.XXXXXX")
pids=()
stop() {
  trap - EXIT INT TERM
  if [ ${#pids[@]} -gt 0 ]; then
    kill "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
  fi
  rm -rf "$data"
}
trap stop EXIT
trap 'exit 130' INT TERM

free_port() { perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1", LocalPort => $ARGV[0]) and print $ARGV[0]' "$1"; }
page_port=$(free_port 7701)

say "starting a coordinator"
"$bin/lull-coordinator" --data-dir "$data/coordinator" --listen 127.0.0.1:0 --http-listen "127.0.0.1:${page_port:-0}" \
  --ready-file "$data/coordinator.ready" >"$data/coordinator.log" 2>&1 &
pids+=($!)
wait_for 30 "the coordinator (log: $data/coordinator.log)" test -s "$data/coordinator.ready"
field() { perl -ne 'print $1 if /"'"$1"'"\s*:\s*"([^"]+)"/' "$data/coordinator.ready"; }
token=$("$bin/lull-coordinator" --data-dir "$data/coordinator" token --role submitter --name quickstart)

say "starting a worker and letting it join"
"$bin/lull-worker" --data-dir "$data/worker" --always --ready-file "$data/worker.ready" \
  --join "$("$bin/lull-coordinator" --data-dir "$data/coordinator" join-code)" >"$data/worker.log" 2>&1 &
pids+=($!)
wait_for 30 "the worker (log: $data/worker.log)" test -s "$data/worker.ready"

say "running a job on it: render six frames of a scene and check them"
export LULL_URL LULL_TOKEN=$token LULL_CA=$data/coordinator/tls/ca.pem
LULL_URL=$(field url)
results=$here/lull-quickstart-results
"$bin/lull" run --name "six frames" --dir "$root/examples/frames" --output 'out/*.png' --into "$results" -- \
  'perl render.pl scene.txt out 6' 'perl check.pl out'

cat <<DONE

The job ran on the worker in an isolated folder; its frames are in $results
Page:        $(field httpUrl)
Sign in with $token
Took:        $(elapsed)
DONE
if [ "$keep_running" = yes ]; then
  printf '\nCoordinator and worker go on until you press Ctrl-C.\n'
  wait
fi
