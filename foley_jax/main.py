"""Trains one stage, or evaluates its newest checkpoint.

  python -m foley_jax.main --config=configs/cavp.py --workdir=runs/cavp
  python -m foley_jax.main --config=configs/cavp.py:demo --workdir=demo/runs/cavp
  python -m foley_jax.main --config=configs/ldm.py --workdir=runs/ldm \\
      --config.data.dir=my/features --config.batch_size=64 --config.optimizer.lr=5e-5
  python -m foley_jax.main --config=configs/ldm.py --workdir=runs/tuned \\
      --config.init_from.unet=runs/ldm:unet --config.freeze=unet.input_blocks
  python -m foley_jax.main --config=configs/cavp.py --workdir=runs/cavp --mode=evaluate
  python -m foley_jax.main --config=configs/ldm.py --workdir=runs/ldm --mode=evaluate -- \\
      --protocol=onsets,av-align --reference videos/test --samples=10
  python -m foley_jax.main --config=configs/ldm.py --workdir=runs/ldm --profile=20:25

A run that was stopped, by SIGTERM or by force, is continued by the same command, with the numbers
it would have had. With other settings it says what differs from the run so far and what that does;
settings that give the weights another meaning are refused without --accept_changes. The workdir
receives config.json, checkpoints/, metrics.jsonl and TensorBoard files, and configs.jsonl if the
settings changed. One that SIGTERM stopped exits with code 75, which the scripts of launch/ start
again. Every field of the config can be set on the command line, as above; configs/*.py explain
them. With --distributed the same command runs on every host of a TPU slice or Slurm job.

`tensorboard --logdir=WORKDIR` shows curves, video and audio. What --profile wrote is opened by
`pip install xprof && xprof --logdir=WORKDIR/profile --port=8791`, at http://localhost:8791.

Compiled programs are kept in JAX_COMPILATION_CACHE_DIR (default ~/.cache/foley_jax/programs), so
that the same run starts quickly again; JAX_ENABLE_COMPILATION_CACHE=0 keeps none.

--mode=evaluate measures the losses on held-out data; what follows "--" goes to foley_jax.evaluation
instead, which makes audio clips with the run and judges them (its report: WORKDIR/report).
"""

import ast
from collections.abc import Sequence
import os
import re
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from foley_jax.runtime import command_help

_ARGV: list[str] = []  # what the config's flags are read from; `parse` fills it
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, with a variant after a colon: configs/cavp.py:demo",
    lock_config=True,
    sys_argv=_ARGV,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; made if it does not exist")
_MODE = flags.DEFINE_enum("mode", "train", ("train", "evaluate"), "What to do")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Several processes: joins the others first. Address, number and index come from the cluster, "
    "or from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
)
_PROFILE = flags.DEFINE_string(
    "profile",
    None,
    "START:STOP: writes a trace of the updates START to STOP, both included and counted from 1 as "
    "in metrics.jsonl, into WORKDIR/profile; the first update of a process also compiles",
)
_ACCEPT = flags.DEFINE_bool(
    "accept_changes",
    False,
    "Go on with a run, or evaluate it, although settings changed that say what its weights mean",
)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error comes from")

RESTART = 75  # exit code of a run that SIGTERM stopped: the same command goes on
_EXPECTED = (ValueError, OSError, FloatingPointError)  # say themselves what to do
_OURS = ("config", "workdir", "mode", "distributed", "profile", "accept_changes", "traceback")


class UsageError(ValueError):
    """The command line is wrong; the message says how to put it right."""


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags and the config; returns what is left.

    Raises:
      UsageError: unknown flag or config field, wrong type, missing config file or workdir.
    """
    if any(arg in ("-h", "--help", "-help", "--helpfull") for arg in argv[1:]):
        print(command_help.usage(__doc__, _OURS))
        sys.exit(0)
    _ARGV[:], parts = _split_init_from(argv)
    try:
        rest = flags.FLAGS(list(_ARGV))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UsageError(f"{_one_line(error)} (see --help)") from error
    if len(rest) > 1 and not ("--" in _ARGV and _MODE.value == "evaluate"):
        raise UsageError(f"unexpected argument {rest[1]!r}; flags begin with -- (see --help)")
    for name in ("config", "workdir"):
        if flags.FLAGS[name].value is None:
            raise UsageError(f"--{name} is missing (see --help)")
    _profiled_steps()
    file = config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]
    if not os.path.isfile(file):
        raise UsageError(f"no config file {file} (see --help)")
    with _CONFIG.value.unlocked():
        _CONFIG.value.init_from.update(parts)
    return rest


def _profiled_steps() -> tuple[int, int] | None:
    """First and last update of --profile.

    Raises:
      UsageError: not of the form START:STOP with 1 <= START <= STOP, or nothing is trained.
    """
    if _PROFILE.value is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", _PROFILE.value)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"--profile is {_PROFILE.value!r}, expected START:STOP with 1 <= START <= STOP, e.g. "
            "20:25 (see --help)"
        )
    if _MODE.value != "train":
        raise UsageError(f"--profile records training; --mode is {_MODE.value}")
    return int(found[1]), int(found[2])


def _split_init_from(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Takes `--config.init_from.PART=RUN_DIR:PART` out of the arguments.

    The config is locked against misspelt fields, but its `init_from` has no list of fields: any
    part of a model may be named, as "unet/input_blocks" or "unet.input_blocks".

    Returns:
      The other arguments; part, with slashes -> source.
    Raises:
      UsageError: no source is given.
    """
    rest, parts = [], {}
    for argument in argv:
        found = re.fullmatch(r"--?config\.init_from\.([^=]+)(?:=(.*))?", argument)
        if found is None:
            rest.append(argument)
        elif not found[2]:
            raise UsageError(f"{argument} names no source; write {argument}=RUN_DIR:PART")
        else:
            parts[found[1].replace(".", "/")] = found[2]
    return rest, parts


def _one_line(error: Exception) -> str:
    """The message without the traceback that ml_collections puts into it."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1].partition("Error: ")[2]
    if text[:1] in "'\"" and text[-1:] == text[:1]:  # a KeyError shows its message as a literal
        text = ast.literal_eval(text)
    return " ".join(text.split())


def run(argv: Sequence[str]) -> None:
    """Trains or evaluates as the flags say."""
    if len(argv) > 1:
        _judge(argv[1:])
        return
    # after the flags: --help and wrong flags answer at once
    from foley_jax.runtime import compile_cache, distributed, watchdog

    if _DISTRIBUTED.value:
        distributed.join_processes()
        watchdog.watch()
    compile_cache.turn_on()
    from foley_jax.training import loop  # must not touch a device before that

    logging.set_verbosity(logging.WARNING)
    if _MODE.value == "evaluate":
        loop.evaluate(_CONFIG.value, _WORKDIR.value, accept_changes=_ACCEPT.value)
        watchdog.leave()
        return
    state = loop.train(
        _CONFIG.value,
        _WORKDIR.value,
        profile=_profiled_steps(),
        accept_changes=_ACCEPT.value,
    )
    watchdog.leave()
    if state is not None and int(state.step) < _CONFIG.value.total_steps:
        sys.exit(RESTART)


def _judge(arguments: Sequence[str]) -> None:
    """Judges what the run makes, under the protocols that the arguments name."""
    from foley_jax.evaluation import __main__ as evaluation

    workdir = _WORKDIR.value
    if not any(argument.split("=")[0] == "--out" for argument in arguments):
        arguments = [*arguments, f"--out={os.path.join(workdir, 'report')}"]
    sys.exit(evaluation.main([*arguments, f"--model={workdir}"]))


def main() -> None:
    """The command line; an expected error is one line and exit code 1."""
    try:
        app.run(run, flags_parser=parse)
    except Exception as error:
        _end_with_others(error)
        if "--traceback" in sys.argv or not isinstance(error, _EXPECTED):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _end_with_others(error: Exception) -> None:
    """Ends all processes of the run, each with a line; returns where there is only this one."""
    if not (flags.FLAGS.is_parsed() and _DISTRIBUTED.value):
        return
    from foley_jax.runtime import distributed, watchdog

    watchdog.give_way()
    if "--traceback" in sys.argv or not isinstance(error, _EXPECTED):
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr, flush=True)
    watchdog.end(" ".join(f"{error}".split()) or type(error).__name__)
    distributed.end_alone(1)  # it failed before it could watch the others
    sys.exit(1)


if __name__ == "__main__":
    main()
