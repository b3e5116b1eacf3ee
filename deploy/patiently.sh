#!/bin/sh
# Runs a command that is silent for long, and shows whoever waits that it goes on:
#
#   deploy/patiently.sh 'Installing what the scanner needs' COMMAND...
set -eu

printf '%s ' "$1" >&2
shift

# Ends by itself if we are killed; Ctrl-C, which the background does not get, ends us by the trap.
dots() {
    while sleep 5 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do printf . >&2; done
}

dots &
trap 'kill $! 2>/dev/null; echo >&2' EXIT
trap 'exit 130' HUP INT TERM
"$@"
