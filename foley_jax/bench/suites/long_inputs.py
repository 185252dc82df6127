"""How much memory `python -m foley_jax.sample` takes, by the length of the video.

Rates and lengths are the paper's (224x224 at 4 frames a second, features of 512, windows of 8 s),
the networks very small: what a network needs for one device batch does not depend on the video.
"""

from collections.abc import Iterator
import pathlib
import subprocess
import sys
import tempfile
import time

import ml_collections
import numpy as np

from configs import cavp as cavp_config
from configs import ldm as ldm_config
from foley_jax.bench import case
from foley_jax.bench.suites import first_sample
from foley_jax.media import video

FPS, SIDE = 4, 224
OPTIONS = ("--steps=2",)
NOTE = (
    "memory is the most that the process had, compiling included, less that of one that only loads "
    "the model"
)
_LOAD = "import sys; from foley_jax import sample; sample.load(sys.argv[1])"


def long_inputs(ask: case.Ask) -> Iterator[case.Case]:
    """Audio for one video, longer and longer; a call is a whole process that compiles anew."""
    for minutes in ask.of(tiny=(0.5, 1), small=(1, 4, 16), paper=(1, 10, 60, 120)):
        ours = Process(minutes)
        yield case.Case(
            "long_inputs", f"{minutes} minutes", ask.size, ours, 1, "process", note=NOTE
        )


class Process:
    """`case.Case.ours`: one process for a video of so many minutes."""

    flops = 0.0

    def __init__(self, minutes: float):
        self._folder = tempfile.TemporaryDirectory()
        self._model = pathlib.Path(self._folder.name) / "ldm"
        self._clip = pathlib.Path(self._folder.name) / "clip.mp4"
        self._minutes, self._loaded = minutes, 0

    def compile(self) -> float:
        """Makes model and video; seconds of a process that only loads the model."""
        write_runs(self._model.parent)
        write_video(self._clip, self._minutes)
        began = time.perf_counter()
        self._loaded = loaded_bytes(self._model)
        return time.perf_counter() - began

    def memory_bytes(self) -> int:
        """Returns the memory of one call, beyond what loading takes."""
        first, _ = first_sample.measure(self._model, self._clip, warm=0, options=OPTIONS)
        return max(0, first.peak_bytes - self._loaded)

    def __call__(self) -> float:
        """One call; gives nothing to compare."""
        first_sample.measure(self._model, self._clip, warm=0, options=OPTIONS)
        return 0.0


def loaded_bytes(model: pathlib.Path) -> int:
    """Most memory of a process that imports the package and loads a model, and does no more."""
    command = [sys.executable, "-c", _LOAD, str(model)]
    _, status, usage = first_sample.ended(subprocess.Popen(command))
    if status:
        raise ValueError(f"{' '.join(command)} failed with exit code {status}")
    return usage.ru_maxrss * 1024


def write_video(path: pathlib.Path, minutes: float) -> None:
    """A view that wanders over an image of soft blots, as H.264 of 4 frames a second."""
    count = round(minutes * 60 * FPS)
    blots = np.random.default_rng(0).integers(0, 255, (SIDE // 32, (SIDE + count) // 32 + 1, 3))
    wide = np.repeat(np.repeat(blots.astype(np.uint8), 32, 0), 32, 1)[:, : SIDE + count - 1]
    views = np.lib.stride_tricks.sliding_window_view(wide, SIDE, axis=1)  # [H, T, 3, W], no copy
    video.write_video(path, views.transpose(1, 0, 3, 2), FPS, crf=35, preset="ultrafast")


def run_configs() -> dict[str, ml_collections.ConfigDict]:
    """Name of a run -> config."""
    cavp, ldm = cavp_config.get_config(), ldm_config.get_config()
    cavp.model.video.update({"depths": (0, 1), "width": 4, "inflate": (False, True)})
    cavp.model.video.stem = "patch4"
    cavp.model.audio.update({"channels": (2, 4, 4, 4, 4), "stem": "patch4", "dropout": 0.0})
    ldm.model.unet.update({"model_channels": 8, "channel_mult": (1,), "num_res_blocks": 1})
    ldm.model.unet.update({"attention_downsamples": (), "num_groups": 4, "num_heads": 2})
    ldm.model.autoencoder.update({"ch": 4, "num_groups": 2, "num_res_blocks": 1})
    cavp.dtype = ldm.dtype = "float32"
    return {"cavp": cavp, "ldm": ldm}


def write_runs(folder: pathlib.Path) -> None:
    """Run folders cavp and ldm, with random weights."""
    first_sample.save_runs(folder, run_configs())
