"""Puts right the pitch of published Diff-Foley outputs, which sound 27 % too low.

    python -m foley_jax.evaluation.repair_pitch theirs/ repaired/
    python -m foley_jax.evaluation.repair_pitch theirs/

Every audio clip (or video with audio) of IN, or IN itself, is looked at: does its spectrum end at
5.5 kHz, as what the official notebook wrote does? Without OUT that is all. With it, those that do
are written into OUT as 16 kHz .wav files of the same names and lengths; the others are copied as
they are, so that OUT can be judged in IN's place.

exit code
  0  every file was looked at, and written
  1  a file could not be; the others are
"""

from collections.abc import Sequence
from pathlib import Path
import shutil
import sys

import jax
import numpy as np

from foley_jax.evaluation import pitch_defect, run_card
from foley_jax.media import audio as audio_io
from foley_jax.media import file_arguments
from foley_jax.media import names as name_lib
from foley_jax.runtime import compile_cache, reasons


def parser() -> file_arguments.Parser:
    """All options."""
    p = file_arguments.Parser(
        prog="python -m foley_jax.evaluation.repair_pitch",
        description=__doc__,
        epilog=compile_cache.HELP,
    )
    p.add_argument("source", type=Path, metavar="IN", help="a folder, or one file")
    p.add_argument("out", type=Path, nargs="?", metavar="OUT", help="a folder, not in IN")
    return p


def repair(path: Path, target: Path | None) -> tuple[bool, float]:
    """Looks at one file and, given a place without suffix, writes it there.

    Returns:
      Whether it had the defect, and the step at the edge in decibels.
    Raises:
      MediaError, OSError, ValueError: it cannot be read or written.
    """
    audio_L = audio_io.load(path, pitch_defect.SPEC.sample_rate_hz)
    step_db = pitch_defect.step_db(audio_L)
    is_wrong = step_db >= pitch_defect.LEAST_STEP_DB
    if target is None:
        return is_wrong, step_db
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_wrong:
        right_L = np.asarray(jax.device_get(pitch_defect.repaired(audio_L)))
        place = target.with_name(f"{target.name}.wav")
        audio_io.write_wav(place, right_L, pitch_defect.SPEC.sample_rate_hz)
    else:
        shutil.copyfile(path, target.with_name(target.name + path.suffix))
    return is_wrong, step_db


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    compile_cache.turn_on()
    try:
        paths = _paths(args.source, args.out)
    except (OSError, ValueError) as error:
        print(f"error: {reasons.of(error)}", file=sys.stderr)
        return 1
    wrong, failed = 0, 0
    for name, path in paths.items():
        try:
            is_wrong, step_db = repair(path, args.out and args.out / name)
        except (OSError, ValueError) as error:
            failed += 1
            print(name_lib.shown(f"error: {path}: {reasons.of(error)}"), file=sys.stderr)
            continue
        wrong += is_wrong
        fate = ("repaired" if args.out else "ends at 5.5 kHz") if is_wrong else "as it should be"
        print(name_lib.shown(f"{path}: {fate} ({step_db:.1f} dB)"))
    print(
        f"{wrong} of {len(paths)} have the wrong pitch" + (f"; {failed} failed" if failed else "")
    )
    return 1 if failed else 0


def _paths(source: Path, out: Path | None) -> dict[str, Path]:
    """Files by name; those of `out` are not searched.

    Raises:
      FileNotFoundError: no such file or folder, or nothing in it.
      ValueError: OUT is IN, or the folder that IN lies in.
    """
    folder = source.parent if source.is_file() else source
    if out is not None and out.resolve() == folder.resolve():
        raise ValueError(
            f"{out} is the folder of what is read, expected another for what is written"
        )
    if source.is_file():
        return {source.stem: source}
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: there is no such file or folder")
    return run_card.find_audio(source, leave_out=[out] if out else ())


if __name__ == "__main__":
    raise SystemExit(main())
