#!/usr/bin/env bash
# Tests on the GPUs of this machine, which may be one of several.
# Usage: [NNODES=.. NODE_RANK=.. MASTER_ADDR=.. PORT=..] tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
set -euo pipefail
usage='usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]'
config=${1:?$usage}
checkpoint=${2:?$usage}
gpus=${3:?$usage}
exec "$(dirname "$0")/dist_launch.sh" test.py "$gpus" "$config" "$checkpoint" "${@:4}"
