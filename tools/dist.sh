#!/usr/bin/env bash
# Run a tool in several processes on this machine: the common part of
# dist_train.sh and dist_test.sh.
#   tools/dist.sh TOOL GPUS [arguments of the tool]
# On several machines, run the same command on each, with
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host-of-rank-0 PORT=29500
set -euo pipefail

folder=$(dirname "$0")
tool=$1
gpus=$2

if [ "${NNODES:-1}" -gt 1 ]; then
    rendezvous=(
        --nnodes "$NNODES" --node-rank "${NODE_RANK:?0 on the first machine}"
        --master-addr "${MASTER_ADDR:?the host of NODE_RANK=0}"
        --master-port "${PORT:-29500}"
    )
elif [ -n "${PORT:-}" ]; then
    rendezvous=(--master-port "$PORT")
else
    # Finds a free port, so that several trainings fit on a machine.
    rendezvous=(--standalone)
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "${PYTHON:-python}" "$folder/torchrun.py" "${rendezvous[@]}" \
    --nproc-per-node "$gpus" "$folder/$tool" "${@:3}" --launcher pytorch
