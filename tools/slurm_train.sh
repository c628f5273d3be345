#!/usr/bin/env bash
# Train through Slurm and wait for the end; slurm.sh lists the settings.
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/slurm.sh" "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
