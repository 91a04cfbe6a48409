#!/bin/sh
# Captions with a Slurm array, a share for each of 16 jobs: sbatch slurm.sh model.gguf pictures
#SBATCH --array=1-16
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --requeue
set -eu
mkdir -p captions
# A job that is requeued goes on with its own file. Status 3 says that some pictures failed, which
# is no reason to run the job again.
xc2-edge caption -m "$1" "$2" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    -t "$SLURM_CPUS_PER_TASK" -o "captions/$SLURM_ARRAY_TASK_ID.jsonl" || [ $? = 3 ]
