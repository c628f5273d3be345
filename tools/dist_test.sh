#!/usr/bin/env bash
# Test on GPUS GPUs of this machine, or in GPUS processes without a GPU.
# On several machines, see dist.sh.
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [options of test.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/dist.sh" test.py "$3" "$1" "$2" "${@:4}"
