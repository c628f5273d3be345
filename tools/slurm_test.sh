#!/usr/bin/env bash
# Test through Slurm and wait for the end; slurm.sh lists the settings.
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/slurm.sh" "$1" "$2" test.py "$3" "$4" "${@:5}"
