"""A page whose model says one tone, for tests of the page and of its server."""

import contextlib
from pathlib import Path
import threading

import numpy as np
import pytest

from foley_jax.inference import clip, load, takes

LIMITS = takes.Limits(most_s=4.0, most_mb=1.0)


class Model:
    """Says one tone of a second, whatever it is shown.

    Attributes:
      go: while it is not set, the tone is not made.
      begun, made: how many calls have begun, and made their tone.
      most: how many there were at once.
    """

    model = None

    def __init__(self):
        self.go, self.begun, self.made, self.most = threading.Event(), 0, 0, 0
        self._lock, self._now = threading.Lock(), 0
        self.go.set()

    def within(self, run):
        self.run = run
        return self

    def __call__(self, path, *, num_samples, **options):
        with self._lock:
            self.begun, self._now = self.begun + 1, self._now + 1
            self.most = max(self.most, self._now)
        try:
            with self.run.watch("features"):
                self.go.wait(60)
            with self.run.watch("vocoder"):
                audio_L = 0.1 * np.sin(np.arange(16000, dtype=np.float32) / 8)
                self.made += 1
        finally:
            with self._lock:
                self._now -= 1
        mel_FT, path = np.zeros((8, 16), np.float32), Path(path)
        made = clip.Clip(audio_L, 16000, mel_FT, 1 / 16, {"steps": options["steps"]}, path)
        return [made] * num_samples


@contextlib.contextmanager
def served(folder, model=None, **options):
    """The address of its page, whose uploads and results lie in a folder."""
    from foley_jax.inference import web

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "any_system", lambda *_, **__: model or Model())
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        blocks, address = web.serve("model", LIMITS, port=0, wait=False, **options)
        yield address.rstrip("/")
        blocks.close()


def ask(client, video, **changed):
    """Begins a request of gradio's client; returns the job, whose `result` is waited for."""
    values = {"text": "", "negative_text": "", "seed": 1, "steps": 2, "guidance": 3.0, "takes": 1}
    values |= {"level_db": -60, "fade_s": 0.0, "video": video, **changed}
    return client.submit(api_name="/audio_for_video", **values)
