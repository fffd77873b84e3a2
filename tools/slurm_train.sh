#!/usr/bin/env bash
# Train under Slurm: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 PORT=.. SRUN_ARGS=..] \
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
set -eu
if [ $# -lt 3 ]; then
    echo "usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 PORT=.. SRUN_ARGS=..] $0 PARTITION JOB_NAME CONFIG [...]" >&2
    exit 2
fi
partition=$1 job=$2 config=$3
shift 3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
[ "$per_node" -le "$gpus" ] || per_node=$gpus
# Jobs that share a machine need ports of their own.
export MASTER_PORT=${PORT:-$((20000 + RANDOM % 10000))}
# --kill-on-bad-exit: the other processes would wait for a dead one until their time-out.
# shellcheck disable=SC2086  (SRUN_ARGS holds several words)
exec srun --partition "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
    --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
