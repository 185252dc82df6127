"""Every key of protocol `av-benchmark` by one command, from videos, audio and captions.

The files of weights are there but empty: stand-ins with the shapes of the networks' outputs answer,
so that what is tested is the way of every feature from a file through the cache into metrics.json.
"""

import json

import av_benchmark_torch as official
import numpy as np
import pytest
import torch

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation.networks import captions, registry
from foley_jax.evaluation.pages import page
from foley_jax.evaluation.protocols import av_benchmark_cache, av_benchmark_figures
from foley_jax.media import audio as audio_io
from foley_jax.media import writing

RATE, SECONDS = 16000, 4.8
NAMES = [f"clip{i:02}" for i in range(10)]  # as many as the splits of ISC
SHAPES = {
    "panns_16k": {"embedding": (2048,), "logits": (527,)},
    "vggish": {"embedding": (5, 128)},
    "passt": {"embedding": (768,), "logits": (527,)},
    "synchformer_audio": {"embedding": (14, 6, 768)},
    "synchformer_video": {"embedding": (14, 8, 768)},
    "imagebind_audio": {"embedding": (1024,)},
    "imagebind_video": {"embedding": (1024,)},
    "laion_clap": {"embedding": (512,)},
    "laion_clap_text": {"embedding": (512,)},
    "ms_clap": {"embedding": (1024,)},
    "ms_clap_text": {"embedding": (1024,)},
}


def _stand_in(name, *_, **__):
    """A network: fixed random maps of how the values of an item spread."""
    if name == "synchformer_joint":
        # brighter than loud means late
        return lambda pair: {
            "logits": np.eye(21, dtype=np.float32)[
                np.clip(10 + np.round(20 * (_mean(pair[0]) - _mean(pair[1]))), 0, 20).astype(int)
            ]
        }
    rng = np.random.default_rng(len(name))
    maps = {k: rng.normal(size=(9, int(np.prod(s)))) / 3 for k, s in SHAPES[name].items()}

    def answer(batch):
        rows = np.asarray(batch, np.float64).reshape(len(batch), -1)
        spread = np.quantile(rows, np.linspace(0.1, 0.9, 9), axis=1).T
        spread /= np.abs(spread).max() + 1e-9
        return {
            key: (spread @ maps[key]).reshape(-1, *shape).astype(np.float32)
            for key, shape in SHAPES[name].items()
        }

    return answer


def _mean(x):
    return x.reshape(len(x), -1).mean(axis=1)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Ten videos with audio, audio to be judged, captions, and empty files of all weights."""
    rng = np.random.default_rng(0)
    for name in ("true", "ours", "weights"):
        (tmp_path / name).mkdir()
    for i, name in enumerate(NAMES):
        frames = rng.integers(0, 20 + 22 * i, (120, 32, 48, 3), dtype=np.uint8)
        audio = rng.normal(0, 0.01 + 0.02 * i, round(SECONDS * RATE)).astype(np.float32)
        writing.write_video(
            tmp_path / f"true/{name}.mp4", frames, 25, audio=audio, sample_rate_hz=RATE
        )
        audio_io.write_wav(tmp_path / f"ours/{name}.wav", audio**2 - 0.1 * audio, RATE)
    lines = ["name,caption", *(f"{name},something that sounds like {name}" for name in NAMES)]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    for name in SHAPES:
        (tmp_path / "weights" / registry.NETWORKS[name].files[0]).write_bytes(b"")
        for file in registry.NETWORKS[name].needs:
            (tmp_path / "weights" / file).parent.mkdir(exist_ok=True)
            (tmp_path / "weights" / file).write_bytes(b"")
    monkeypatch.setenv("FOLEY_JAX_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setattr(registry, "load", _stand_in)
    letters = lambda folder: lambda text: np.array([[ord(c) for c in text], [1] * len(text)])  # noqa: E731
    tokenisers = {name: (letters, place) for name, (_, place) in captions.TOKENISERS.items()}
    monkeypatch.setattr(captions, "TOKENISERS", tokenisers)
    monkeypatch.setattr(page, "write", lambda *_: "nothing")
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Matrix is singular")  # the tool's root of few audio clips
def test_one_command_gives_every_key_and_caches_that_torch_opens(folders):
    given = ["--protocol=av-benchmark", f"--seconds={SECONDS}", f"--weights={folders / 'weights'}"]
    given += [f"--cache={folders / 'caches'}", f"--captions={folders / 'captions.csv'}"]
    given += [f"--reference={folders / 'true'}", f"--generated=ours={folders / 'ours'}"]
    assert command.main([*given, f"--out={folders / 'out'}"]) == 0
    metrics = json.loads((folders / "out/metrics.json").read_text())
    keys = {key for metric in av_benchmark_figures.METRICS for key in metric.keys} | {"DeSync"}
    ours = metrics["systems"]["ours"]
    assert len(keys) == 13 and not metrics["skipped"]
    assert all(np.isfinite(ours[key]) for key in keys)
    # the tool's own formulas on the caches, opened by torch.load(weights_only=True)
    generated, reference = (folders / "caches" / name for name in ("ours", "reference"))
    heard = [file for file in av_benchmark_cache.FILES if not file.endswith(("text", "video"))]
    for folder, files in ((generated, heard), (reference, av_benchmark_cache.FILES)):
        assert {p.stem for p in folder.glob("*.pth")} == set(files)
        for file in files:
            items = official.load(folder, file)
            assert list(items) == NAMES
            parts = items[NAMES[0]] if file == "pann_features" else {"": items[NAMES[0]]}
            assert all(x.dtype == torch.float32 for x in parts.values())
    want = official.evaluate(generated, reference, with_pann=False)
    assert set(want) == keys - {"FD-PANN", "DeSync"}
    # ten items leave covariances without full rank; scipy's root of their product has few digits
    assert {key: ours[key] for key in want} == pytest.approx(want, rel=1e-5)
    # nothing but the last layers' judgement is asked of a network again
    assert 0.0 <= ours["DeSync"] <= 2.0 and 0.0 <= ours["shuffled_DeSync"] <= 2.0
