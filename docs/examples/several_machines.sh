#!/usr/bin/env bash
# Train on the GPUs of several machines that share a file system, without a scheduler. Run the same
# line on each of them, in the folder of the project; the first names the machine where they meet:
#
#     bash docs/examples/several_machines.sh gpu1 2 8     2 machines, 8 GPUs each
#
# One machine needs no script: `python -m matpac pretrain` uses all its GPUs.

set -euo pipefail

if [ $# -ne 3 ]; then
    echo "usage: $0 FIRST_MACHINE NUM_MACHINES GPUS_OF_EACH" >&2
    exit 2
fi

exec torchrun \
    --nnodes "$2" \
    --nproc-per-node "$3" \
    --rdzv-backend c10d \
    --rdzv-id matpac \
    --rdzv-endpoint "$1:29500" \
    -m matpac pretrain
