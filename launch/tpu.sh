# Sourced by tpu_pod.sh and tpu_queued.sh: what is done with a TPU slice that exists.
# shellcheck shell=bash

# tpu_arguments "OPTIONS" ARGUMENT...: options as `read_options` takes them, those of every slice
# among them; sets NAME, PLACE, where the slice is, and VERSION, its runtime
tpu_arguments() {
  local own=$1
  shift
  read_options "zone type project version spot $own" "$@"
  [ ${#WORDS[@]} -eq 1 ] || fail "the name of the slice is missing (see --help)"
  NAME=${WORDS[0]}
  need zone type
  need_training
  new_slice
  PLACE=(--zone="$ZONE")
  [ -z "${PROJECT:-}" ] || PLACE+=(--project="$PROJECT")
  case "$TYPE" in
    v5litepod*) VERSION=${VERSION:-v2-alpha-tpuv5-lite} ;;
    v5p*) VERSION=${VERSION:-v2-alpha-tpuv5} ;;
    v6e*) VERSION=${VERSION:-v2-alpha-tpuv6e} ;;
    *) VERSION=${VERSION:-tpu-ubuntu2204-base} ;;
  esac
}

# everywhere COMMAND: a shell command on all hosts of the slice
everywhere() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${PLACE[@]}" --worker=all --command="$1"
}

# install: the committed files of this checkout, and the package, on all hosts
install() {
  local archive=${TMPDIR:-/tmp}/foley_jax.$NAME.tar.gz
  run git archive --format=tar.gz --output="$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$NAME:foley_jax.tar.gz" "${PLACE[@]}" --worker=all
  everywhere 'rm -rf foley_jax && mkdir foley_jax && tar -xzf foley_jax.tar.gz -C foley_jax &&
    python3 -m venv foley_jax/.venv && foley_jax/.venv/bin/pip install --quiet -e "./foley_jax[tpu]"'
  run rm -f "$archive"
}

# new_slice: says that nothing is installed yet; install_once: installs unless it is
new_slice() {
  INSTALLED=''
}
install_once() {
  [ -n "$INSTALLED" ] || install
  INSTALLED=1
}

# train: the same command on all hosts
train() {
  everywhere "cd foley_jax && . launch/env_tpu.sh &&
    exec .venv/bin/python -m foley_jax.main --distributed $(quoted "${TRAIN[@]}")"
}
