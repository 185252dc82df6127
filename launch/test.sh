#!/usr/bin/env bash
# Installs the test extra into a virtual environment and runs the tests.
#   bash launch/test.sh                 the fast tests, a process for every core
#   bash launch/test.sh -m slow         full-size parity with the official modules, kills, layouts
#   bash launch/test.sh -m by_hand      more of these, which CI has no time for
#   bash launch/test.sh tests/media     any pytest argument
#   bash launch/test.sh --dry-run       only shows the commands
# PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment (default .venv-test),
# WORKERS=N the number of test processes, EXTRAS=test,beam,prep more of the package to install
# (tests of Beam and TensorFlow Datasets are skipped where these are missing), BOUNDS=lowest the
# oldest versions that setup.cfg allows; INSTALL=only stops before the tests, INSTALL=no begins there.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv-test}
DRY_RUN=''
if [ "${1:-}" = "--dry-run" ]; then DRY_RUN=1; shift; fi

run() {
  echo "+ $*" >&2
  [ -n "$DRY_RUN" ] || "$@"
}

install() {
  if [ ! -x "$VENV/bin/python" ]; then run "$PYTHON" -m venv "$VENV"; fi
  PIN=()
  if [ "${BOUNDS:-}" = lowest ]; then
    # the bounds themselves, so that they cannot drift from what was tested
    mkdir -p "$VENV"
    sed -n '/^install_requires/,/^$/s/^ *\([A-Za-z_-]*\)\(\[.*\]\)*>=\(.*\)$/\1==\3/p' setup.cfg > "$VENV/lowest.txt"
    PIN=(--constraint "$VENV/lowest.txt")
  fi
  run "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "${PIN[@]}" -e ".[${EXTRAS:-test}]"
}
[ "${INSTALL:-}" = no ] || install
[ "${INSTALL:-}" != only ] || exit 0
# full-size networks (tests/slow) need the memory of the whole machine
case " $* " in
  *" slow "* | *" by_hand "*) PATIENCE_S=2400 WORKERS=${WORKERS:-0} ;;
  *) PATIENCE_S=420 WORKERS=${WORKERS:-auto} ;;
esac
run "$VENV/bin/python" -m pytest -n "$WORKERS" --dist loadfile --max-worker-restart 1 \
  -o "faulthandler_timeout=$PATIENCE_S" "$@"
