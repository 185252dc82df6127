#!/usr/bin/env bash
# The embedded recipe: Diff-Foley on the embedded set at 12 frames a second, every stage trained for
# long enough, on two CPU cores: videos -> shards -> autoencoder -> CAVP -> features -> latent
# diffusion -> students of 4, 2 and 1 steps -> alignment classifier -> audio for scenes of seeds that
# no training has seen -> report.
#   bash launch/train_embedded.sh             everything, into demo/embedded/
#   bash launch/train_embedded.sh --dry-run   only shows the commands
# Run it again after a stop: every step continues where it was.
# PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment (VENV=none: the current one);
# SEED=N the training seed (default 0; others beside it, in demo/embedded/seed_N),
# SCENES="7001 7002" the seeds of the held-out scenes.
# shellcheck disable=SC2086,SC2046  # commands are kept as text, whose words are meant to be split
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv-demo} SEED=${SEED:-0} SCENES=${SCENES:-7001}
DRY_RUN=''
for arg in "$@"; do
  case "$arg" in
    --dry-run) DRY_RUN=1 ;;
    *) sed -n '2,11p' "$0"; exit 2 ;;
  esac
done

source launch/steps.sh
install_package
TRAIN="$PY -m foley_jax.main"
HERE=demo/embedded
[ "$SEED" = 0 ] || HERE=demo/embedded/seed_$SEED
RUNS=$HERE/runs
FIRST_STAGE="--config.init_from.autoencoder=$RUNS/autoencoder:autoencoder \
--config.init_from.latent_scale=$RUNS/autoencoder:latent_scale"

step "Draw and synthesise the embedded videos"
run "$PY" -m data_prep.scenes demo/videos

step "Videos to shards (12 frames a second, 64x64; 16 kHz audio)"
run "$PY" -m data_prep.prepare demo/videos demo/embedded/shards --fps=12 --size=64

step "Train the mel autoencoder"
run $TRAIN --config=configs/autoencoder.py:embedded --config.seed=$SEED --workdir=$RUNS/autoencoder

step "Train CAVP"
run $TRAIN --config=configs/cavp.py:embedded --config.seed=$SEED --workdir=$RUNS/cavp

step "CAVP features"
run "$PY" -m data_prep.features demo/embedded/shards $HERE/features --model=$RUNS/cavp --seamless

step "Train latent diffusion"
run $TRAIN --config=configs/ldm.py:embedded --config.seed=$SEED --workdir=$RUNS/ldm --config.data.dir=$HERE/features \
  --config.cavp=$RUNS/cavp $FIRST_STAGE

for steps in 4 2 1; do
  step "Distil a student of $steps steps"
  teacher=$RUNS/ldm variant=embedded
  [ $steps = 4 ] || { teacher=$RUNS/ldm_$((2 * steps)); variant=embedded_$steps; }
  from=''
  for part in unet conditioner; do
    from+=" --config.init_from.$part=$teacher:$part --config.init_from.teacher_$part=$teacher:$part"
  done
  run $TRAIN --config=configs/ldm_distilled.py:$variant --config.seed=$SEED \
    --workdir=$RUNS/ldm_$steps --config.data.dir=$HERE/features --config.cavp=$RUNS/cavp \
    $FIRST_STAGE $from
done

step "Train the alignment classifier"
run $TRAIN --config=configs/alignment.py:embedded --config.seed=$SEED --workdir=$RUNS/alignment \
  --config.data.dir=$HERE/features $FIRST_STAGE

for scenes in $SCENES; do
  step "Held-out scenes of seed $scenes: their audio, and their own through the autoencoder"
  videos=demo/embedded/scenes_$scenes out=$HERE/out_$scenes
  run "$PY" -m data_prep.scenes $videos --train=0 --hard_train=0 --test=64 --hard_test=64 \
    --seed=$scenes
  sample="$PY -m foley_jax.sample $videos/test $videos/test_hard --model=$RUNS/ldm --guidance=3"
  pair "$sample --out=$out/generated" "$sample --out=$out/reconstructed --reconstruct"
  for steps in 4 2 1; do
    run ${sample/--model=$RUNS\/ldm/--model=$RUNS/ldm_$steps} --steps=$steps --out=$out/steps_$steps
  done
  run "$PY" -m foley_jax.evaluation --protocol=embedded --reference $videos/test $videos/test_hard \
    --train=demo/videos/train --generated=generated=$out/generated \
    --generated=reconstructed=$out/reconstructed --generated=steps_4=$out/steps_4 \
    --generated=steps_2=$out/steps_2 --generated=steps_1=$out/steps_1 --out=$out/report
done

step "Done: $HERE/out_*/generated/*.mp4, $HERE/out_*/report/index.html"
