#!/usr/bin/env bash
# Train on GPUS GPUs of this machine, or in GPUS processes without a GPU.
# On several machines, see dist.sh.
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/dist.sh" train.py "$2" "$1" "${@:3}"
