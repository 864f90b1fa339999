#!/usr/bin/env bash
# Trains on the GPUs of this machine, which may be one of several.
# Usage: [NNODES=.. NODE_RANK=.. MASTER_ADDR=.. PORT=..] tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
set -euo pipefail
usage='usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]'
config=${1:?$usage}
gpus=${2:?$usage}
exec "$(dirname "$0")/dist_launch.sh" train.py "$gpus" "$config" "${@:3}"
