# Sourced by the demo scripts: steps with times, dry runs, two jobs side by side. No use alone.
# shellcheck shell=bash disable=SC2086,SC2046  # commands are kept as text, whose words are split

# On Linux, memory in pages of 2 MiB: training steps on a CPU take up to a fifth less time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

SECONDS=0
step() { printf '\n=== %s   (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
run() {
  echo "+ $*"
  [ -n "$DRY_RUN" ] || "$@"
}
# install_package: the package in $VENV, or as it stands in the current environment (VENV=none);
# sets PY, the interpreter
install_package() {
  step "Install"
  if [ "$VENV" = none ]; then
    PY=$PYTHON
  else
    PY=$VENV/bin/python
    [ -x "$PY" ] || run "$PYTHON" -m venv "$VENV"
    run "$PY" -m pip install --quiet --disable-pip-version-check -e .
  fi
}
pin() {  # pin CORE: the prefix that keeps a job on one core, empty where that cannot be done
  if [ "$(nproc)" -ge 2 ] && command -v taskset >/dev/null; then echo "taskset -c $1"; fi
}
# pair "COMMAND" "COMMAND": two jobs side by side, a core each; the second one's output goes to
# demo/logs. Fails if either fails.
pair() {
  echo "+ $1"
  echo "+ $2   (beside it; output in demo/logs/beside.log)"
  [ -z "$DRY_RUN" ] || return 0
  mkdir -p demo/logs
  local first second failed=0
  $(pin 0) $1 & first=$!
  $(pin 1) $2 >demo/logs/beside.log 2>&1 & second=$!
  wait "$first" || failed=1
  wait "$second" || { failed=1; tail -n 20 demo/logs/beside.log >&2; }
  return "$failed"
}
# pairs "COMMAND" ...: all of them, two at a time
pairs() {
  while [ $# -ge 2 ]; do
    pair "$1" "$2"
    shift 2
  done
  [ $# -eq 0 ] || run $1
}
