#!/usr/bin/env bash
# Trains on the GPUs of a Slurm cluster, a process for each of them.
#   bash launch/slurm.sh NAME --nodes=2 --gpus=8 --time=24:00:00 \
#       -- --config=configs/ldm.py --workdir=/shared/runs/ldm
#   --nodes=N          default 1
#   --gpus=N           of a node (default 8)
#   --cpus=N           for each GPU (default 8): they decode
#   --time=T           limit; two minutes before it the run saves and is queued again
#   --partition=P, --account=A
#   --python=PATH      interpreter with the package installed (default: python)
#   --dry-run          only shows the commands
# A job that is preempted, or reaches its limit, saves, is queued again, and goes on. The checkout,
# the interpreter and the workdir must be on a file system that all nodes see.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/cloud.sh

read_options "nodes gpus cpus time partition account python" "$@"
[ ${#WORDS[@]} -eq 1 ] || fail "the name of the job is missing (see --help)"
need_training

PLACE=()
[ -z "${PARTITION:-}" ] || PLACE+=(--partition="$PARTITION")
[ -z "${ACCOUNT:-}" ] || PLACE+=(--account="$ACCOUNT")
[ -z "${TIME:-}" ] || PLACE+=(--time="$TIME")

run mkdir -p logs
run sbatch --job-name="${WORDS[0]}" --nodes="${NODES:-1}" --ntasks-per-node="${GPUS:-8}" \
  --gpus-per-node="${GPUS:-8}" --cpus-per-task="${CPUS:-8}" "${PLACE[@]}" \
  --requeue --signal=TERM@120 --open-mode=append --output="logs/${WORDS[0]}.%j.log" \
  launch/slurm_job.sh "${PYTHON:-python}" --distributed "${TRAIN[@]}"
