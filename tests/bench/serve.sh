#!/bin/sh
# The product as the side-by-side benchmark runs it: its BENCH_* variables become ours. The bursts need more time than a
# caller gives, and the benchmark's clamd has signatures of its own.
set -eu
cd "$(dirname "$0")/../.."
state=$BENCH_WORK/state
rm -rf "$state"
mkdir -p "$state"
export MEDIA_SCANNER__SERVER__LISTEN="127.0.0.1:$BENCH_PORT"
export MEDIA_SCANNER__SERVER__OPS_LISTEN="127.0.0.1:$((BENCH_PORT + 1))"
export MEDIA_SCANNER__SERVER__REQUEST_TIMEOUT=150s
export MEDIA_SCANNER__STATE_DIR="$state"
export MEDIA_SCANNER__HOMESERVER__URL="$BENCH_ORIGIN"
export MEDIA_SCANNER__HOMESERVER__TOTAL_TIMEOUT=150s
export MEDIA_SCANNER__LIMITS__QUEUE_WAIT=120s
export MEDIA_SCANNER__CLAMAV__ADDRESSES="[unix:$BENCH_CLAMD_SOCKET]"
export MEDIA_SCANNER__CLAMAV__SCAN_TIMEOUT=120s
exec .venv/bin/media-scanner serve
