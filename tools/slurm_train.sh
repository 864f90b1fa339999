#!/usr/bin/env bash
# Trains under Slurm.
# Usage: [GPUS=.. GPUS_PER_NODE=.. CPUS_PER_TASK=.. SRUN_ARGS=..] tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
set -euo pipefail
usage='usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]'
partition=${1:?$usage}
job_name=${2:?$usage}
config=${3:?$usage}
shift 3
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
# Jobs that share a machine need ports of their own.
export MASTER_PORT=${MASTER_PORT:-$((20000 + RANDOM % 20000))}
# Slurm sends SIGTERM two minutes before the time limit, so that training saves and ends. exec lets signals reach srun.
# shellcheck disable=SC2086  # SRUN_ARGS is a list of options
exec srun -p "$partition" \
  --job-name="$job_name" \
  --gres=gpu:"$gpus_per_node" \
  --ntasks="$gpus" \
  --ntasks-per-node="$gpus_per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-8}" \
  --kill-on-bad-exit=1 \
  --signal=TERM@120 \
  ${SRUN_ARGS:-} \
  python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
