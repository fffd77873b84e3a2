#!/usr/bin/env bash
# Train in several processes: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: the same command on each, with NNODES, NODE_RANK (0, 1, ...), MASTER_ADDR (that of rank 0) and PORT.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: [NNODES=.. NODE_RANK=.. MASTER_ADDR=.. PORT=..] $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
tools=$(dirname "$0")
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    where=(--standalone)  # finds a free port
else
    where=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}"
           --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
fi
exec "${PYTHON:-python}" "$tools/launch.py" "${where[@]}" --nproc_per_node "$gpus" \
    "$tools/train.py" "$config" --launcher pytorch "$@"
