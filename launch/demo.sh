#!/usr/bin/env bash
# Audio for drawn videos, with the model that the package holds, in about three minutes on two CPU
# cores: install -> draw videos of a seed that no training has seen -> audio -> scores and a page.
#   bash launch/demo.sh               in a new environment (.venv-demo), into demo/boxed/
#   bash launch/demo.sh --dry-run     only shows the commands
# Run it again after a stop: finished videos are skipped.
# PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment (VENV=none: the current one);
# MODEL=embedded STEPS=25 takes the model that the one of four steps was distilled from.
# shellcheck disable=SC2086,SC2046  # commands are kept as text, whose words are meant to be split
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv-demo} MODEL=${MODEL:-embedded:4_steps} STEPS=${STEPS:-4}
DRY_RUN=''
for arg in "$@"; do
  case "$arg" in
    --dry-run) DRY_RUN=1 ;;
    *) sed -n '2,8p' "$0"; exit 2 ;;
  esac
done

source launch/steps.sh
install_package
HERE=demo/boxed
VIDEOS="$HERE/videos/test $HERE/videos/test_hard"

step "Draw 12 plain and 12 hard videos"
run "$PY" -m data_prep.scenes $HERE/videos --train=0 --hard_train=0 --test=12 --hard_test=12 --seed=7001

step "Audio for them"
run "$PY" -m foley_jax.sample $VIDEOS --model=$MODEL --steps=$STEPS --out=$HERE/out

step "Scores, and a page with players"
run "$PY" -m foley_jax.evaluation --protocol=embedded --reference $VIDEOS \
  --generated=generated=$HERE/out --out=$HERE/report

step "Done: $HERE/out/*.mp4, $HERE/report/index.html"
