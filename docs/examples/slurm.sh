#!/usr/bin/env bash
# Train under Slurm, on all GPUs of one machine or of several that share a file system. Adapt the
# lines #SBATCH and submit it in the folder of the project:
#
#     sbatch docs/examples/slurm.sh                               one machine, 8 GPUs
#     sbatch --nodes 4 --gpus-per-node 4 docs/examples/slurm.sh   four machines, 4 GPUs each
#
# Two minutes before the time is up, the run is told to save. Submitted again, it goes on from there,
# also on another number of GPUs. Submit it several times: jobs of one name wait for each other.

#SBATCH --job-name=matpac
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --dependency=singleton

set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --cpus-per-task "$SLURM_CPUS_PER_TASK" torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-endpoint "$first:29500" \
    -m matpac pretrain
