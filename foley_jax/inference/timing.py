"""How long generation takes: every stage by itself, and all of them side by side."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import threading
import time
from typing import Any

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"  # what jax.monitoring calls it
STAGES = ("decode", "features", "diffusion", "autoencoder", "vocoder", "scores", "write", "mux")
LEFT_OUT = {  # row of the table -> stages that others may not count
    "without feature extraction": ("features",),
    "without vocoder": ("vocoder",),
    "without mux": ("mux",),
    "diffusion and autoencoder alone": ("decode", "features", "vocoder", "scores", "write", "mux"),
}
NOTE = (
    "Seconds per clip. A stage's figure is its own busy time; stages run side by side in threads "
    "(decoding, writing) and on a shared device, so they may add to more than 'wall', which is "
    "elapsed time per clip. Counted are the clips after the first group, which compiles; "
    "'compile_s' is what was compiled after it, included in the figures. Decoding, which compiles "
    "nothing, is counted for all clips. Of several processes busy times are added (process "
    "seconds per clip), and 'wall' is the slowest one's over the clips of all."
)


@dataclasses.dataclass
class Tally:
    """Account of one process.

    Attributes:
      clips: made in this run.
      counted: of these, made after the first group; all of them if there was no other.
      warm: there was another, so that `counted` leaves the first out.
      wall_s: elapsed for the counted.
      busy_s: stage -> seconds of work on the counted.
      audio_s: seconds of audio in all clips.
      compile_s: spent in compilation, within `wall_s`.
    """

    clips: int = 0
    counted: int = 0
    warm: bool = False
    wall_s: float = 0.0
    busy_s: dict[str, float] = dataclasses.field(default_factory=dict)
    audio_s: float = 0.0
    compile_s: float = 0.0


class Clock:
    """Adds up the seconds of `STAGES`, from any thread: `with clock("decode"): ...`."""

    def __init__(self):
        self._lock = threading.Lock()
        self._whole: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._compiled = self._compiled_before = 0.0
        self._begin = self._warm = self._end = 0.0

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if stage not in STAGES:
            raise ValueError(f"no stage {stage!r}; there are {', '.join(STAGES)}")
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - begin)

    def _add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._whole[stage] += seconds

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The span whose compilations are counted, and whose end is the end of the wall time."""

        def listen(event: str, seconds: float, **_: Any) -> None:
            if event == COMPILED:
                self._compiled += seconds

        jax.monitoring.register_event_duration_secs_listener(listen)
        self._begin = self._warm = time.perf_counter()
        try:
            yield
        finally:
            self._end = time.perf_counter()
            jax.monitoring.unregister_event_duration_listener(listen)

    def restart(self) -> None:
        """Everything so far was warming up."""
        with self._lock:
            self._before = self._whole.copy()
        self._compiled_before, self._warm = self._compiled, time.perf_counter()

    def tally(self, clips: int, warming: int, audio_s: float) -> Tally:
        """Returns what was measured.

        Args:
          clips: made in all.
          warming: of these, made before `restart`.
          audio_s: seconds of audio in all of them.
        """
        if clips == warming:  # nothing came after the first group: its compilation is included
            wall_s = self._end - self._begin
            return Tally(clips, clips, False, wall_s, dict(self._whole), audio_s, self._compiled)
        counted = clips - warming
        busy_s = dict(self._whole - self._before)
        if "decode" in self._whole:  # read ahead, while the first group was made
            busy_s["decode"] = self._whole["decode"] * counted / clips
        wall_s, compile_s = self._end - self._warm, self._compiled - self._compiled_before
        return Tally(clips, counted, True, wall_s, busy_s, audio_s, compile_s)


def record(tallies: Sequence[Tally], about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `speed.json` holds; see `NOTE` for what the figures are.

    Args:
      tallies: of all processes.
      about: what else there is to know: settings, devices.
    """
    counted = sum(tally.counted for tally in tallies)
    per_clip = {"wall": max(tally.wall_s for tally in tallies) / max(1, counted)}
    busy: Counter[str] = Counter()
    for tally in tallies:
        busy.update(tally.busy_s)
    stages = {stage: busy[stage] / max(1, counted) for stage in STAGES if stage in busy}
    total = sum(stages.values())
    sums = {"all stages": total}
    for name, left_out in LEFT_OUT.items():
        sums[name] = total - sum(stages.get(stage, 0.0) for stage in left_out)
    clips = sum(tally.clips for tally in tallies)
    return {
        **about,
        "clips": clips,
        "clips_counted": counted,
        "first_group_left_out": all(tally.warm for tally in tallies if tally.clips),
        "sound_s_per_clip": sum(tally.audio_s for tally in tallies) / max(1, clips),
        "seconds_per_clip": {**per_clip, **stages},
        "busy_seconds_per_clip": sums,
        "compile_s": sum(tally.compile_s for tally in tallies),
        "note": NOTE,
    }


def table(speed: Mapping[str, Any]) -> str:
    """The record as lines of text."""
    features = {**speed["seconds_per_clip"], **speed["busy_seconds_per_clip"]}
    width = max(map(len, features))
    compiling = "first group left out" if speed["first_group_left_out"] else "with compilation"
    lines = [
        f"seconds per clip of {speed['sound_s_per_clip']:.1f} s, over {speed['clips_counted']} of "
        f"{speed['clips']} clips ({compiling}), on {speed['devices']}:"
    ]
    for name, seconds in features.items():
        lines.append(f"  {name:{width}}  {seconds:9.3f}")
    return "\n".join(lines)
