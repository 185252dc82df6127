# Sourced by the launch scripts of clusters: options, dry runs, restarts. No use alone.
# shellcheck shell=bash

# usage: prints the comment at the head of the calling script
usage() {
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# run COMMAND...: shows a command, and runs it unless this is a dry run
run() {
  printf '+ %s\n' "$(quoted "$@")" >&2
  [ -n "$DRY_RUN" ] || "$@"
}

# quoted WORD...: the words as a shell would read them back
quoted() {
  local text
  printf -v text '%q ' "$@"
  printf '%s' "${text% }"
}

# read_options "NAME..." ARGUMENT...: sets an upper-case variable for each --name=value that is
# listed, DRY_RUN for --dry-run, FLAG=1 for a listed --flag; what follows -- is left in TRAIN, the
# arguments of `python -m foley_jax.main`, and other words in WORDS.
read_options() {
  local known=" $1 " name argument
  shift
  DRY_RUN='' WORDS=() TRAIN=()
  while [ $# -gt 0 ]; do
    argument=$1
    shift
    case "$argument" in
      -h | --help) usage; exit 0 ;;
      --) TRAIN=("$@"); break ;;
      --dry-run) DRY_RUN=1 ;;
      --*)
        name=${argument#--}
        name=${name%%=*}
        case "$known" in *" $name "*) ;; *) fail "unknown option --$name (see --help)" ;; esac
        case "$argument" in
          *=*) printf -v "$(variable "$name")" '%s' "${argument#*=}" ;;
          *) printf -v "$(variable "$name")" '%s' 1 ;;
        esac
        ;;
      *) WORDS+=("$argument") ;;
    esac
  done
}

variable() {
  local name=${1//-/_}
  printf '%s' "${name^^}"
}

# need NAME...: fails unless these options were given
need() {
  local name variable
  for name in "$@"; do
    variable=$(variable "$name")
    [ -n "${!variable:-}" ] || fail "--$name=... is missing (see --help)"
  done
}

# need_training: fails unless what to train follows --
need_training() {
  case " ${TRAIN[*]:-} " in
    *" --config="*" --workdir="* | *" --workdir="*" --config="*) ;;
    *) fail "what to train is missing: -- --config=configs/STAGE.py --workdir=gs://BUCKET/RUN" ;;
  esac
}

# The exit code of a run that was asked to stop and has saved; see foley_jax/main.py.
RESTART=75
# A run that ends sooner than this, with an error, this often in a row, is broken.
BROKEN_S=${BROKEN_S:-600}
BROKEN_TIMES=${BROKEN_TIMES:-3}

# until_done START READY: calls START (which trains) until it ends well. Between two attempts READY
# makes sure that there is something to train on.
until_done() {
  local start=$1 ready=$2 code began broken=0
  while true; do
    "$ready"
    began=$(date +%s)
    code=0
    "$start" || code=$?
    [ "$code" -ne 0 ] || return 0
    if [ "$code" -ne "$RESTART" ] && [ $(($(date +%s) - began)) -lt "$BROKEN_S" ]; then
      broken=$((broken + 1))
      if [ "$broken" -ge "$BROKEN_TIMES" ]; then
        echo "error: ended with code $code after less than $BROKEN_S s, $broken times in a row" >&2
        return "$code"
      fi
    else
      broken=0
    fi
    echo "ended with code $code; goes on from the last checkpoint" >&2
  done
}
