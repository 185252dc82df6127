#!/usr/bin/env bash
# The whole of Diff-Foley in small, on the embedded set, on two CPU cores:
# draw videos -> shards -> CAVP and autoencoder -> features -> latent diffusion -> audio -> report.
#   bash launch/train_demo.sh               everything, in a new environment (.venv-demo), into demo/
#   bash launch/train_demo.sh --controls    also the two control trainings (about 10 minutes more)
#   bash launch/train_demo.sh --dry-run     only shows the commands
# Run it again after a stop: every step continues where it was.
# PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment (VENV=none: the current one).
# shellcheck disable=SC2086,SC2046  # commands are kept as text, whose words are meant to be split
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv-demo}
DRY_RUN='' CONTROLS=''
for arg in "$@"; do
  case "$arg" in
    --dry-run) DRY_RUN=1 ;;
    --controls) CONTROLS=1 ;;
    *) sed -n '2,8p' "$0"; exit 2 ;;
  esac
done

source launch/steps.sh

install_package
TRAIN="$PY -m foley_jax.main"
FEATURES="$PY -m data_prep.features demo/shards"
LDM="$TRAIN --config=configs/ldm.py:demo"
SAMPLE="$PY -m foley_jax.sample demo/videos/test demo/videos/test_hard --guidance=3"

step "Draw and synthesise the embedded videos"
run "$PY" -m data_prep.scenes demo/videos

step "Videos to shards (4 frames a second, 64x64; 16 kHz audio)"
run "$PY" -m data_prep.prepare demo/videos demo/shards --size=64

step "Train CAVP"
run $TRAIN --config=configs/cavp.py:demo --workdir=demo/runs/cavp

step "Train the mel autoencoder"
run $TRAIN --config=configs/autoencoder.py:demo --workdir=demo/runs/autoencoder

step "CAVP features"
run $FEATURES demo/features --model=demo/runs/cavp

step "Train latent diffusion"
run $LDM --workdir=demo/runs/ldm

step "Audio for the held-out videos; beside it, their own audio through the autoencoder"
systems=(generated reconstructed)
pair "$SAMPLE --model=demo/runs/ldm --out=demo/out/generated" \
  "$SAMPLE --model=demo/runs/ldm --out=demo/out/reconstructed --reconstruct"

if [ -n "$CONTROLS" ]; then
  step "Controls: features of an untrained CAVP, and rows swapped between training clips"
  systems+=(untrained_cavp permuted_features)
  run $TRAIN --config=configs/cavp.py:demo --workdir=demo/runs/cavp_untrained --config.total_steps=0
  run $FEATURES demo/features_untrained --model=demo/runs/cavp_untrained
  run $FEATURES demo/features_permuted --model=demo/runs/cavp --permute
  pair "$LDM --workdir=demo/runs/ldm_untrained --config.data.dir=demo/features_untrained \
    --config.cavp=demo/runs/cavp_untrained" \
    "$LDM --workdir=demo/runs/ldm_permuted --config.data.dir=demo/features_permuted"
  pair "$SAMPLE --model=demo/runs/ldm_untrained --out=demo/out/untrained_cavp" \
    "$SAMPLE --model=demo/runs/ldm_permuted --out=demo/out/permuted_features"
fi

step "Scores, and a page with players"
run "$PY" -m foley_jax.evaluation --protocol=embedded --reference demo/videos/test demo/videos/test_hard \
  --train=demo/videos/train --out=demo/report $(for s in "${systems[@]}"; do echo "--generated=$s=demo/out/$s"; done)

step "Done: demo/out/generated/*.mp4, demo/report/index.html"
