#!/usr/bin/env bash
# Trains on a TPU cluster of Google Kubernetes Engine through XPK: builds an image of this checkout,
# pushes it, and creates a workload that runs `python -m foley_jax.main --distributed` everywhere.
#   bash launch/gke.sh NAME --cluster=C --zone=us-west4-a --type=v5litepod-64 \
#       --image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/foley_jax \
#       -- --config=configs/ldm.py --workdir=gs://BUCKET/runs/ldm
#   --slices=N         how many slices of that type (default 1)
#   --restarts=N       how often a workload that ended early is started again (default 100)
#   --project=P        default: gcloud's
#   --dry-run          only shows the commands
# Needs docker, gcloud and xpk (pip install xpk), logged in, and a cluster of `xpk cluster create`.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/cloud.sh

read_options "cluster zone type image slices restarts project" "$@"
[ ${#WORDS[@]} -eq 1 ] || fail "the name of the workload is missing (see --help)"
need cluster zone type image
need_training

TAG=$IMAGE:$(git rev-parse --short=12 HEAD)
PLACE=(--cluster "$CLUSTER" --zone "$ZONE")
[ -z "${PROJECT:-}" ] || PLACE+=(--project "$PROJECT")

run docker build -f launch/Dockerfile --build-arg EXTRA=tpu -t "$TAG" .
run docker push "$TAG"
run xpk workload create --workload "${WORDS[0]}" "${PLACE[@]}" --tpu-type="$TYPE" \
  --num-slices="${SLICES:-1}" --docker-image "$TAG" --max-restarts="${RESTARTS:-100}" \
  --command ". launch/env_tpu.sh && python -m foley_jax.main --distributed $(quoted "${TRAIN[@]}")"
