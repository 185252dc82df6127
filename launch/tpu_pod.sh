#!/usr/bin/env bash
# Trains on a TPU VM slice of Google Cloud, all of its hosts: makes it if it is not there, copies
# this checkout, installs it, and runs `python -m foley_jax.main --distributed` on every host.
#   bash launch/tpu_pod.sh NAME --zone=us-west4-a --type=v5litepod-64 \
#       -- --config=configs/ldm.py --workdir=gs://BUCKET/runs/ldm
#   --project=P        default: gcloud's
#   --version=IMAGE    runtime (default v2-alpha-tpuv5-lite for v5litepod, tpu-ubuntu2204-base else)
#   --spot             cheaper, may be taken away at any time: see tpu_queued.sh, which asks again
#   --delete           deletes the slice when the training has ended well
#   --dry-run          only shows the commands
# What ends before its last step is started again and goes on from its last checkpoint; three
# failures in a row, each within ten minutes, end it. Needs gcloud, logged in, and a workdir in a
# bucket that the slice may write.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/cloud.sh
source launch/tpu.sh

tpu_arguments "delete" "$@"

# ready: the slice exists, and has this code
ready() {
  if ! described >/dev/null 2>&1; then
    local spot=()
    [ -z "${SPOT:-}" ] || spot=(--spot)
    run gcloud compute tpus tpu-vm create "$NAME" "${PLACE[@]}" --accelerator-type="$TYPE" \
      --version="$VERSION" "${spot[@]}"
    new_slice
  fi
  install_once
}

described() {
  [ -z "$DRY_RUN" ] || return 1
  gcloud compute tpus tpu-vm describe "$NAME" "${PLACE[@]}" --format='value(state)'
}

until_done train ready
[ -z "${DELETE:-}" ] || run gcloud compute tpus tpu-vm delete "$NAME" "${PLACE[@]}" --quiet
