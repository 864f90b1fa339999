#!/usr/bin/env bash
# Starts one process per GPU of this machine, which may be one of several; used by dist_train.sh and dist_test.sh.
# On a machine without GPUs the processes share its cores and communicate by gloo.
# Usage: [NNODES=.. NODE_RANK=.. MASTER_ADDR=.. PORT=..] tools/dist_launch.sh PROGRAM GPUS [arguments of the program]
set -euo pipefail
program=$1
gpus=$2
shift 2
if [[ ${NNODES:-1} == 1 && -z ${PORT:-} ]]; then
  # Picks a free port, so that several runs can share a machine.
  where=(--standalone)
else
  where=(
    --nnodes="${NNODES:-1}"
    --node_rank="${NODE_RANK:-0}"
    --master_addr="${MASTER_ADDR:-127.0.0.1}"
    --master_port="${PORT:-29500}"
  )
fi
# exec lets signals reach torchrun. Without -- torchrun would take the program's options as its own.
exec python -m torch.distributed.run "${where[@]}" --nproc_per_node="$gpus" \
  -- "$(dirname "$0")/$program" "$@" --launcher pytorch
