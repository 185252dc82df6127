#!/usr/bin/env bash
# Trains on a TPU slice from Google Cloud's queue: asks for it, waits, trains on all of its hosts,
# and, when the slice is taken away, deletes what is left of the request and asks again.
#   bash launch/tpu_queued.sh NAME --zone=us-west4-a --type=v5litepod-64 --spot \
#       -- --config=configs/ldm.py --workdir=gs://BUCKET/runs/ldm
#   --project=P        default: gcloud's
#   --version=IMAGE    runtime (default by the type)
#   --spot             cheaper, may be taken away at any time
#   --poll=S           seconds between two looks at the queue (default 60)
#   --keep             leaves the slice when the training has ended well (default: deletes it)
#   --dry-run          only shows the commands
# The training goes on from its last checkpoint. Needs gcloud, logged in, and a workdir in a bucket.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/cloud.sh
source launch/tpu.sh

tpu_arguments "poll keep" "$@"

state() {
  local found
  found=$(gcloud compute tpus queued-resources describe "$NAME" "${PLACE[@]}" \
    --format='value(state.state)' 2>/dev/null) || found=MISSING
  echo "$found"
}

ask() {
  local spot=()
  [ -z "${SPOT:-}" ] || spot=(--spot)
  new_slice
  run gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" "${PLACE[@]}" \
    --accelerator-type="$TYPE" --runtime-version="$VERSION" "${spot[@]}"
}

forget() {
  run gcloud compute tpus queued-resources delete "$NAME" "${PLACE[@]}" --force --quiet
}

# ready: the slice is ours, and has this code
ready() {
  local now=MISSING before=''
  if [ -n "$DRY_RUN" ]; then
    ask
    install
    return
  fi
  while true; do
    now=$(state)
    [ "$now" = "$before" ] || echo "$NAME: $now" >&2
    before=$now
    case "$now" in
      ACTIVE) break ;;
      MISSING) ask ;;
      FAILED | SUSPENDED) forget ;;
      *) sleep "${POLL:-60}" ;;
    esac
  done
  install_once
}

until_done train ready
[ -n "${KEEP:-}" ] || forget
