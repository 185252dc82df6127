#!/usr/bin/env bash
# The job that slurm.sh submits: the same command in every task; queued again if it was stopped.
#   launch/slurm_job.sh PYTHON ARGUMENTS-OF-foley_jax.main...
set -uo pipefail
RESTART=75  # see foley_jax/main.py
PYTHON=$1
shift
source launch/env_gpu.sh

# Slurm's TERM (its limit is near, or the job is preempted) is for the tasks, which save on it;
# ignoring it here (trap '') would be inherited by them.
trap : TERM
code=0
# every task goes as soon as one fails: the others would wait for it
srun --kill-on-bad-exit=1 "$PYTHON" -m foley_jax.main "$@" || code=$?
if [ "$code" -eq "$RESTART" ]; then
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$code"
