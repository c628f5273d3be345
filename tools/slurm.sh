#!/usr/bin/env bash
# Run a tool by srun: the common part of slurm_train.sh and slurm_test.sh.
#   tools/slurm.sh PARTITION JOB_NAME TOOL [arguments of the tool]
# GPUS=8 ranks, GPUS_PER_NODE=8 of them per node, CPUS_PER_TASK=5 per rank, and
# SRUN_ARGS for further options. In a partition without GPUs, GPUS is the number
# of processes, and CPUS_PER_TASK defaults to 1.
set -euo pipefail

partition=$1
job_name=$2
tool=$3

if ! command -v srun >/dev/null; then
    echo 'error: srun is not installed: call tools/slurm_*.sh on a host of the' \
        'cluster, or tools/dist_*.sh without Slurm' >&2
    exit 1
fi
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
gres=()
cpus_per_task=1
if [[ $(sinfo --noheader --partition "$partition" --format %G) == *gpu* ]]; then
    gres=(--gres "gpu:$gpus_per_node")
    cpus_per_task=5
fi
# SRUN_ARGS is split at spaces.
# shellcheck disable=SC2086
exec srun --partition "$partition" --job-name "$job_name" "${gres[@]}" \
    --ntasks "$gpus" --ntasks-per-node "$gpus_per_node" \
    --cpus-per-task "${CPUS_PER_TASK:-$cpus_per_task}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/$tool" "${@:4}" --launcher slurm
