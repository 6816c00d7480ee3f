#!/bin/sh
#SBATCH --job-name=jcs
#SBATCH --array=1-40
#SBATCH --cpus-per-task=2
#SBATCH --mem=3G
#SBATCH --time=12:00:00
#SBATCH --requeue
# 40 shares of an archive that every node sees under one path:
#   sbatch --export=ALL,JCS_IN=/archive,JCS_OUT=/results array.sh
# and when all have ended (a share that was lost is simply not there; --of names what it would have made):
#   jcs collect /results/part-* -o /results/all --of /archive
#   jcs diagnose /archive -o /results/all --resume       # what is missing, and nothing else
# A job that is requeued, or started anew, goes on where it was. Where each sub-folder, archive or line of a list holds
# whole studies, JCS_PART_BY=entry spares every job the headers of the others; then collect takes --part-by entry too, and
# diagnose --part 1/1 --part-by entry.
set -eu
: "${JCS_IN:?the archive}" "${JCS_OUT:?the folder of results}"
first=${SLURM_ARRAY_TASK_MIN:-1}
part=$((SLURM_ARRAY_TASK_ID - first + 1))
of=${JCS_PARTS:-$SLURM_ARRAY_TASK_COUNT}   # to do one share again: --array=7 with JCS_PARTS=40 JCS_PART=7
exec "${JCS:-jcs}" diagnose "$JCS_IN" -o "$JCS_OUT/part-${JCS_PART:-$part}" --resume \
  --part "${JCS_PART:-$part}/$of" --part-by "${JCS_PART_BY:-study}" --threads "${SLURM_CPUS_PER_TASK:-2}"
