"""Where numbers of a run go: `metrics.jsonl`, TensorBoard, the terminal. Process 0 alone writes."""

from collections.abc import Mapping
import json
import sys

from etils import epath
import jax
import numpy as np
import tqdm

from foley_jax.training import task as task_lib

SHOWN_WAIT = 0.1  # share of the time that a run waits for data, above which the bar says so


class MetricsLog:
    """One run's log; on processes other than 0 every method does nothing.

    Args:
      run_dir: receives `metrics.jsonl` and TensorBoard event files.
      start_step: lines of later steps, left by a run that was killed, are removed.
      total_steps: for the progress bar.
    """

    def __init__(self, run_dir: epath.PathLike, *, start_step: int, total_steps: int):
        self._active = jax.process_index() == 0
        if not self._active:
            return
        folder = epath.Path(run_dir)
        self._file = folder / "metrics.jsonl"
        _drop_after(self._file, start_step)
        self._handle = self._file.open("a")
        # the file is named after the second; one that goes on within it must not write over it
        suffix = f".from{start_step}"
        self._board = _summary_writer()(
            str(folder), purge_step=start_step + 1, filename_suffix=suffix
        )
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=start_step,
            desc=folder.name,
            unit="step",
            smoothing=0.1,
            # a bar redrawn ten times a second would fill a log file
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
        )

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        if self._active:
            self._bar.write(text, file=sys.stderr)

    def advance(self) -> None:
        """Counts one step."""
        if self._active:
            self._bar.update()

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Records metrics after `step` updates; those of training also appear on the bar.

        Args:
          split: "train", with at least "loss", or "eval".
        """
        if not self._active:
            return
        record = {"step": step, "split": split, **{k: float(v) for k, v in metrics.items()}}
        self._handle.write(json.dumps(record) + "\n")
        self._handle.flush()
        for name, value in metrics.items():
            self._board.add_scalar(f"{split}/{name}", float(value), step)
        if split == "train":
            self._bar.set_postfix_str(_summary(metrics), refresh=False)
        else:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            self.say(f"step {step} {split}: {shown}")

    def show(self, step: int, shown: Mapping[str, task_lib.Image | task_lib.Audio]) -> None:
        """Writes video and audio, as they are after `step` updates, for TensorBoard."""
        if not self._active:
            return
        for name, what in shown.items():
            if isinstance(what, task_lib.Image):
                self._board.add_image(name, what.pixels_HWC, step, dataformats="HWC")
            else:
                self._board.add_audio(name, _waveform(what), step, what.sample_rate_hz)
        self._board.flush()

    def close(self) -> None:
        """Flushes and closes everything."""
        if self._active:
            self._bar.close()
            self._board.close()
            self._handle.close()


def _summary(metrics: Mapping[str, float]) -> str:
    """Returns what a look at the bar should tell."""
    parts = [f"loss {metrics['loss']:.4g}"]
    if "examples_per_s" in metrics:
        parts.append(f"{metrics['examples_per_s']:.3g} examples/s")
    if "mfu" in metrics:
        parts.append(f"mfu {metrics['mfu']:.0%}")
    if metrics.get("data_wait", 0.0) > SHOWN_WAIT:
        parts.append(f"waits for data {metrics['data_wait']:.0%}")
    return "  ".join(parts)


def _waveform(audio: task_lib.Audio) -> np.ndarray:
    """float32 [L, 1] in [-1, 1], as tensorboardX wants it; louder samples are clipped."""
    audio_L = audio.audio_L.astype(np.float32)
    if audio.audio_L.dtype == np.int16:
        audio_L = audio_L / 32768
    return np.clip(audio_L, -1.0, 1.0)[:, None]


def _summary_writer() -> type:
    """tensorboardX's writer, without waiting for torch.

    Where torch is installed tensorboardX imports it (seconds), only to accept its tensors; where
    it is not, tensorboardX does without.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # what Python itself puts for "cannot be imported"
    try:
        import tensorboardX
    finally:
        if hidden:
            del sys.modules["torch"]
    return tensorboardX.SummaryWriter


def _drop_after(file: epath.Path, step: int) -> None:
    """Removes lines of steps after `step`, a last line cut off by a kill, and damaged ones."""
    if not file.exists():
        return
    kept = []
    for line in file.read_bytes().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError):
            continue
    temporary = file.parent / "metrics.jsonl.tmp"
    temporary.write_bytes(b"".join(kept))
    temporary.replace(file)
