#!/usr/bin/env bash
# Builds coordinators with a fault built in, for the tests that must find it: <target>/faults/unfenced/lull-coordinator takes
# what an old attempt says, <target>/faults/unsynced/lull-coordinator does not wait for the disk.
set -euo pipefail
# shellcheck source=lib/machine.sh
. "$(dirname "$0")/lib/machine.sh"

# In the workspace's own target folder, so that nothing but the coordinator is built again. It leaves the faulty program
# where the good one belongs: build everything after it.
for fault in unfenced unsynced; do
  cargo build --locked --quiet --manifest-path "$root/Cargo.toml" --workspace --bin lull-coordinator \
    --features "lull-coordinator/fault-$fault"
  mkdir -p "$CARGO_TARGET_DIR/faults/$fault"
  mv "$CARGO_TARGET_DIR/debug/lull-coordinator" "$CARGO_TARGET_DIR/faults/$fault/"
done
