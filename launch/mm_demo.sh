#!/usr/bin/env bash
# MM-Diffusion in small, on the embedded set, on two CPU cores: draw videos -> shards -> coupled
# U-Net -> sounding videos from noise, audio for silent videos, videos for audio -> report.
#   bash launch/mm_demo.sh               everything, in a new environment (.venv-demo), into demo/
#   bash launch/mm_demo.sh --ablation    also the paper's ablation in small, and that of time positions
#                                        (about two hours more)
#   bash launch/mm_demo.sh --super_resolution   also 32x32 -> 128x128 (half an hour more)
#   bash launch/mm_demo.sh --dry-run     only shows the commands
# Run it again after a stop: every step continues where it was.
# PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment (VENV=none: the current one);
# SEEDS="0 1 2" the training seeds of the ablation, VARIANTS="timed_whole" those of its rows that are
# wanted, MORE="--config.total_steps=3000" what else is to be set in their trainings.
# shellcheck disable=SC2086,SC2046  # commands are kept as text, whose words are meant to be split
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv-demo} SEEDS=${SEEDS:-0 1 2} MORE=${MORE:-}
DRY_RUN='' ABLATION='' LARGE=''
for arg in "$@"; do
  case "$arg" in
    --dry-run) DRY_RUN=1 ;;
    --ablation) ABLATION=1 ;;
    --super_resolution) LARGE=1 ;;
    *) sed -n '2,12p' "$0"; exit 2 ;;
  esac
done

source launch/steps.sh
install_package
TRAIN="$PY -m foley_jax.main --config=configs/mm_diffusion.py:demo"
SAMPLE="$PY -m foley_jax.sample"
MODEL=demo/runs/mm_diffusion

step "Draw and synthesise simple embedded videos"
run "$PY" -m data_prep.scenes demo/mm_videos --train=0 --test=0 --hard_train=0 --hard_test=0 \
  --simple_train=400 --simple_test=12

step "Videos to shards (10 frames a second, 32x32; 8 kHz audio)"
run "$PY" -m data_prep.prepare demo/mm_videos demo/mm_shards --fps=10 --size=32 --sample_rate=8000

step "Train the coupled U-Net"
run $TRAIN --workdir=$MODEL

step "Sounding videos from noise"
run $SAMPLE --model=$MODEL --num_samples=64 --out=demo/mm_out/noise

if [ -n "$LARGE" ]; then
  step "Super-resolution: shards of 128x128, training, and two large clips"
  run "$PY" -m data_prep.prepare demo/mm_videos demo/mm_shards_large --fps=10 --size=128 \
    --sample_rate=8000
  run "$PY" -m foley_jax.main --config=configs/mm_super_resolution.py:demo \
    --workdir=demo/runs/mm_large
  run "$PY" -m foley_jax.evaluation.super_resolution demo/mm_shards_large \
    --model=demo/runs/mm_large --out=demo/mm_report/large
  run $SAMPLE --model=$MODEL --super_resolution=demo/runs/mm_large --num_samples=2 \
    --out=demo/mm_out/large
fi

step "Audio for held-out silent videos: replacement and gradient"
pair "$SAMPLE demo/mm_videos/test --model=$MODEL --method=replacement --steps=50 --out=demo/mm_out/replacement" \
  "$SAMPLE demo/mm_videos/test --model=$MODEL --method=gradient --steps=50 --out=demo/mm_out/gradient"

step "Videos for their audio"
run $SAMPLE demo/mm_out/replacement/simple_0000[0-1].wav --model=$MODEL --steps=50 \
  --out=demo/mm_out/videos

systems=("--system=noise=demo/mm_out/noise")
if [ -n "$ABLATION" ]; then
  step "Ablation: cross-attention, windows, random shift, time positions; a training for each seed"
  # all rows, those with time positions (timed_...) last, unless some are chosen
  VARIANTS=${VARIANTS:-uncoupled windows_1_1_1 windows_1_4_8 windows_8_8_8 windows_1_4_8_shifted \
    timed_1_4_8 timed_8_8_8 timed_whole timed_1_4_8_shifted timed_8_8_8_shifted}
  # name -> what it changes
  variant() {
    local windows=--config.model.cross_attention_windows shift=--config.model.random_shift
    local timed=--config.model.time_positions=True
    case "$1" in
      uncoupled) echo "--config.model.cross_attention_downsamples=() $windows=()" \
        "--config.model.middle_cross_attention=False" ;;
      windows_1_1_1) echo "$windows=(1,1,1)" ;;
      windows_1_4_8) echo "$windows=(1,4,8)" ;;
      windows_8_8_8) echo "$windows=(8,8,8)" ;;
      windows_1_4_8_shifted) echo "$windows=(1,4,8) $shift=True" ;;
      timed_1_4_8) echo "$windows=(1,4,8) $timed" ;;
      timed_8_8_8) echo "$windows=(8,8,8) $timed" ;;
      timed_whole) echo "$windows=(16,16,16) $timed" ;;
      timed_1_4_8_shifted) echo "$windows=(1,4,8) $shift=True $timed" ;;
      timed_8_8_8_shifted) echo "$windows=(8,8,8) $shift=True $timed" ;;
    esac
  }
  trainings=() samplings=()
  for seed in $SEEDS; do
    for name in $VARIANTS; do
      dir=demo/mm_ablation/${name}_$seed
      trainings+=("$TRAIN --workdir=$dir/run --config.seed=$seed $(variant $name) $MORE")
      samplings+=("$SAMPLE --model=$dir/run --num_samples=64 --seed=$seed --out=$dir/out")
      systems+=("--system=$name=$dir/out")
    done
  done
  pairs "${trainings[@]}"
  pairs "${samplings[@]}"
fi

step "Scores"
run "$PY" -m foley_jax.evaluation.sounding --videos=demo/mm_videos --out=demo/mm_report \
  "${systems[@]}"
run "$PY" -m foley_jax.evaluation --protocol=embedded --reference demo/mm_videos/test --train=demo/mm_videos/train \
  --generated=replacement=demo/mm_out/replacement --generated=gradient=demo/mm_out/gradient \
  --out=demo/mm_report/audio_for
step "Done: demo/mm_out/*/*.mp4, demo/mm_report"
