#!/usr/bin/env bash
# For the day a GPU is there: device and versions, the main networks against the official outputs,
# memory predicted and seen, speed beside torch (eager and compiled), in at most 12 minutes. Writes
# a section into foley_jax/bench/README.md; parts go to gpu_report/.
#   bash launch/gpu_report.sh                          on the GPU of this machine
#   bash launch/gpu_report.sh --platform=cpu --small   everything in small, to see that it works:
#                                                      writes a copy of the README instead
#   bash launch/gpu_report.sh --dry-run                only shows the commands
# PYTHON=DIR/bin/python: an environment with `pip install -e '.[gpu,bench]'`; OUT=DIR; MINUTES=24
# gives every step twice the time.
# A step that fails or takes too long is named in the section, and the next one runs.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3} OUT=${OUT:-gpu_report} MINUTES=${MINUTES:-12}
PLATFORM=cuda SIZE=paper DTYPE=bfloat16 REPEATS=3 SMALL='' DRY_RUN=''
for arg in "$@"; do
  case "$arg" in
    --platform=gpu) PLATFORM=cuda ;;
    --platform=*) PLATFORM=${arg#*=} ;;
    --small) SMALL=--small SIZE=tiny DTYPE=float32 REPEATS=1 ;;
    --dry-run) DRY_RUN=1 ;;
    *) sed -n '2,13p' "$0"; exit 2 ;;
  esac
done
export JAX_PLATFORMS=$PLATFORM PYTHONPATH=. XLA_PYTHON_CLIENT_PREALLOCATE=false
[ "$PLATFORM" = cpu ] || JAX_PLATFORMS=$PLATFORM,cpu
END=$(( $(date +%s) + 60 * MINUTES ))
README=foley_jax/bench/README.md

# step NAME SECONDS COMMAND...: at most so long, and never beyond the end
step() {
  local name=$1 most=$2 left; shift 2
  echo "+ $*" >&2
  [ -z "$DRY_RUN" ] || return 0
  most=$(( most * MINUTES / 12 ))
  left=$(( END - $(date +%s) - 15 ))
  [ "$left" -lt "$most" ] && most=$left
  if [ "$most" -lt 20 ]; then echo "$name: no time was left" | tee -a "$OUT/steps.txt"; return 0; fi
  timeout "$most" "$@" || echo "$name: failed or took longer than $most s" | tee -a "$OUT/steps.txt"
}

if [ -z "$DRY_RUN" ]; then mkdir -p "$OUT"; rm -rf "$OUT/steps.txt" "$OUT/bench" "$OUT"/*.json; fi
step "device" 60 "$PYTHON" -m foley_jax.bench.gpu_report device --out="$OUT"

# the prediction takes CPUs only, and is made beside the rest
CONFIG=(--config=configs/ldm.py --config.batch_size=64)
[ -z "$SMALL" ] || CONFIG=(--config=configs/autoencoder.py:demo --config.batch_size=2)
CARD=$("$PYTHON" -c 'import json, sys; from foley_jax.aot import gpu
kind = json.load(open(sys.argv[1]))["kind"]
print(next((c for c in gpu.cards() if gpu.device_kind(c) == kind), ""))' "$OUT/device.json" 2>/dev/null || true)
PREDICTION=''
if [ -n "$CARD" ]; then
  JAX_PLATFORMS=cpu step "prediction" 400 "$PYTHON" -m foley_jax.aot "${CONFIG[@]}" \
    --topology="$CARD:1" --cache="$OUT/predicted" > "$OUT/predicted.txt" 2>&1 &
  PREDICTION=$!
fi

step "official outputs" 180 "$PYTHON" tests/device_goldens.py $SMALL --out="$OUT/goldens.json"

# bench SECONDS SUITE [OPTION...]
bench() {
  local most=$1 suite=$2; shift 2
  step "$suite" "$most" "$PYTHON" -m foley_jax.bench "$suite" --size=$SIZE --dtype=$DTYPE \
    --repeats=$REPEATS --out="$OUT/bench" "$@"
}
bench 60 griffin_lim
bench 75 vae_decode
bench 200 ldm_sample --only=CFG
bench 120 mm_sample
bench 120 ldm_train
bench 120 cavp_train

[ -z "$PREDICTION" ] || wait "$PREDICTION" || true
step "memory" 150 "$PYTHON" -m foley_jax.aot.seen "${CONFIG[@]}" --predicted="$OUT/predicted" \
  --out="$OUT/memory.json"

if [ "$PLATFORM" != cuda ]; then
  [ -n "$DRY_RUN" ] || cp "$README" "$OUT/README.md"
  README=$OUT/README.md
fi
echo "+ $PYTHON -m foley_jax.bench.gpu_report write --out=$OUT --readme=$README" >&2
[ -n "$DRY_RUN" ] || "$PYTHON" -m foley_jax.bench.gpu_report write --out="$OUT" --readme="$README"
