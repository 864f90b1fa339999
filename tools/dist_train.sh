#!/usr/bin/env bash
# Trains on the GPUs of this machine, or on this machine as one of several.
# Usage: [NNODES=.. NODE_RANK=.. MASTER_ADDR=.. PORT=..] tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
set -euo pipefail
config=${1:?usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]}
gpus=${2:?usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]}
shift 2
exec python -m torch.distributed.run \
  --nnodes="${NNODES:-1}" \
  --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" \
  --master_port="${PORT:-29500}" \
  --nproc_per_node="$gpus" \
  -- "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
