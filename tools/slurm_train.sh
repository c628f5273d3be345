#!/usr/bin/env bash
# Check a training, train through Slurm and wait for the end; slurm.sh lists the
# settings. CHECK=0 skips the check, where this host does not see the data.
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]" >&2
    exit 2
fi
if [ "${CHECK:-1}" != 0 ]; then
    "${PYTHON:-python}" "$(dirname "$0")/check.py" "$3" --work-dir "$4" \
        "${@:5}" >&2 || exit
fi
exec "$(dirname "$0")/slurm.sh" "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
