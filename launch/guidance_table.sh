#!/usr/bin/env bash
# Which guidance helps, and does temporal split & merge? On the embedded set, after launch/train_demo.sh:
# trains the two alignment classifiers and a latent diffusion without merged windows, samples the
# held-out plain videos with no guidance, classifier-free (CFG), classifier (CG) and double
# guidance, three seeds each, and prints onset F1 and alignment accuracy.
#   bash launch/guidance_table.sh               about half an hour on 2 cores, into demo/guidance
#   bash launch/guidance_table.sh --dry-run     only shows the commands
# Run it again after a stop: every step continues where it was.
# VENV=DIR: the environment that train_demo.sh made (.venv-demo); VENV=none: the current one.
# SEEDS="0 1 2", ALIGNMENT=50, GUIDANCE=3, SPLITS="test" (or "test test_hard") change the table.
# shellcheck disable=SC2086,SC2046  # commands are kept as text, whose words are meant to be split
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv-demo} SEEDS=${SEEDS:-0 1 2} SPLITS=${SPLITS:-test}
ALIGNMENT=${ALIGNMENT:-50} GUIDANCE=${GUIDANCE:-3}
DRY_RUN=''
for arg in "$@"; do
  case "$arg" in
    --dry-run) DRY_RUN=1 ;;
    *) sed -n '2,10p' "$0"; exit 2 ;;
  esac
done
PY=$VENV/bin/python
[ "$VENV" != none ] || PY=${PYTHON:-python3}
source launch/steps.sh

TRAIN="$PY -m foley_jax.main"
step "Alignment classifiers: one for guidance, one that judges"
pair "$TRAIN --config=configs/alignment.py:demo --workdir=demo/runs/alignment" \
  "$TRAIN --config=configs/alignment.py:demo_eval --workdir=demo/runs/alignment_eval"

step "Latent diffusion without merged windows"
run $TRAIN --config=configs/ldm.py:demo --workdir=demo/runs/ldm_unmerged \
  --config.data.merge_probability=0.0

videos=() truth=()
for split in $SPLITS; do
  videos+=("demo/videos/$split") truth+=("demo/videos/$split")
done
# sample NAME MODEL GUIDANCE ALIGNMENT SEED: the command that makes one system's audio
sample() {
  echo "$PY -m foley_jax.sample ${videos[*]} --model=demo/runs/$2 --guidance=$3 --alignment=$4" \
    "--seed=$5 --classifier=demo/runs/alignment --classifier=demo/runs/alignment_eval" \
    "--out=demo/guidance/$1_$5"
}
systems=()
for seed in $SEEDS; do
  step "Audio, seed $seed"
  pair "$(sample none ldm 1 0 $seed)" "$(sample cfg ldm $GUIDANCE 0 $seed)"
  pair "$(sample cg ldm 1 $ALIGNMENT $seed)" "$(sample double ldm $GUIDANCE $ALIGNMENT $seed)"
  run $(sample cfg_unmerged ldm_unmerged $GUIDANCE 0 $seed)
  for name in none cfg cg double cfg_unmerged; do
    systems+=("--generated=$name=demo/guidance/${name}_$seed")
  done
done

step "Scores"
run "$PY" -m foley_jax.evaluation --protocol=embedded --reference "${truth[@]}" --train=demo/videos/train \
  --out=demo/guidance/report "${systems[@]}"
