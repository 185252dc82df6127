"""Seeded weights and recorded outputs of the metric networks, and how far two arrays differ."""

from collections.abc import Callable, Mapping
import functools
import json
import pathlib
from typing import Any

from flax import nnx
from goldens import fill
import jax
import numpy as np

from foley_jax.interop import registry

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "evaluation"
GAIN = np.float32(np.sqrt(2.0))  # of every tensor with two or more axes in the "_g" goldens
NETWORK_LIMIT, FRONT_END_LIMIT = 1e-4, 1e-5  # relative L2: float32 in another order


def golden(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and notes of a golden file."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "__meta__"}
        return arrays, json.loads(bytes(file["__meta__"]))


@functools.lru_cache(maxsize=1)
def plain(name: str, prefix: str) -> Mapping[str, np.ndarray]:
    """The filled state dict of a network, by official name."""
    keys = json.loads((GOLDENS / f"{name}_keys.json").read_text())
    types = {key: (shape, dtype.removeprefix("torch.")) for key, (shape, dtype) in keys.items()}
    return {
        key: fill.fill_value(key, shape, prefix)
        if fill.is_filled(key, shape, dtype)
        else np.zeros(shape, dtype)
        for key, (shape, dtype) in types.items()
    }


def gained(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state of the "_g" goldens, whose outputs depend on the input far more."""
    return {key: value * GAIN if value.ndim >= 2 else value for key, value in state.items()}


def run(model: nnx.Module, fn: Callable, *args: Any) -> Any:
    """`fn(model, *args)` compiled as one program, its parameters as arguments."""
    graphdef, state = nnx.split(model)
    call = jax.jit(lambda state, *args: fn(nnx.merge(graphdef, state), *args))
    return jax.device_get(call(nnx.to_pure_dict(state), *args))


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Relative L2 distance; the shapes must agree."""
    assert got.shape == want.shape, (got.shape, want.shape)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def _weights(name: str, prefix: str) -> Mapping[str, np.ndarray]:
    """Finds a network by its golden's file's name: plain, or with gain where it ends in "_g"."""
    state = plain(name.removesuffix("_g"), prefix)
    return gained(state) if name.endswith("_g") else state


def vggish(name: str) -> dict[str, float]:
    """Output -> distance, for "vggish" or "vggish_g"."""
    want, meta = golden(name)
    model = registry.from_state_dict("vggish", _weights(name, meta["fill_prefix"]))
    audio = fill.waveform("public/", 3.2, 0)[None]
    log_mel = fill.inp("vggish.logmel", (3, 1, 96, 64), "public/")[:, 0]

    def outputs(model: nnx.Module, audio: jax.Array, log_mel: jax.Array) -> tuple[jax.Array, ...]:
        embedding = model.embed(audio)[0]
        model.last_relu = False
        return embedding, model(log_mel)

    wave, raw = run(model, outputs, audio, log_mel)
    got = {
        "wave_embedding": wave,
        "random_embedding": np.maximum(raw, 0.0),
        "random_embedding_no_last_relu": raw,
    }
    return {part: distance(got[part], want[part]) for part in got}


def panns_waves(rate_hz: int) -> np.ndarray:
    """The two audio clips of PANNs' goldens, 3 s each."""
    waves = [fill.waveform(f"public/{i}/", 3.0, i % 2, sr=rate_hz) for i in range(2)]
    return np.stack(waves)


def panns(name: str) -> dict[str, float]:
    """Output -> distance, for a golden file such as "panns_cnn14_16k_g"."""
    want, meta = golden(name)
    kind = name.removesuffix("_g").replace("panns_", "panns/")
    model = registry.from_state_dict(kind, _weights(name, meta["fill_prefix"]))
    waves = panns_waves(model.spec.sample_rate_hz)
    embedding, logits = run(model, lambda model, x: model(x), waves)
    got = {"embedding": embedding, "clipwise_output": np.asarray(jax.nn.sigmoid(logits))}
    return {part: distance(got[part], want[part]) for part in got}


def melception(name: str, rows: slice = slice(None)) -> dict[str, float]:
    """Output -> distance, for chosen mels of a golden (rows do not depend on each other)."""
    want, meta = golden(name)
    model = registry.from_state_dict("melception", _weights(name, meta["fill_prefix"]))
    mel = 0.5 * fill.inp("melception.mel", (2, 80, meta["T"]), "public/")[rows]
    got = run(model, lambda model, x: model(x), mel)
    assert set(got) == set(want)
    return {part: distance(got[part], want[part][rows]) for part in got}


def audioclip_state() -> dict[str, np.ndarray]:
    """AudioCLIP's seeded weights; the transform keeps its constructed values."""
    state = dict(plain("audioclip_audio", "public/esrnx:"))
    bins = state["fbsp.fc"].size
    constructed = (np.zeros(bins), np.ones(bins), np.arange(bins))
    for part, value in zip(("m", "fb", "fc"), constructed, strict=True):
        state[f"fbsp.{part}"] = value.astype(np.float32)
    return state


def audioclip_sounds() -> np.ndarray:
    """The three audio clips of its goldens, 1.6 s at 44.1 kHz."""
    return 0.3 * fill.inp("fad.audio", (3, 1, 70560), "public/")[:, 0]


def audioclip(case: str) -> dict[str, float]:
    """Spectrogram and embedding -> distance, for a case such as "as_coded/eval_mode"."""
    want, _ = golden("audioclip_audio")
    model = registry.from_state_dict("audioclip/audio", audioclip_state())
    scale, mode = case.split("/")
    int16, batch = scale == "int16scale", mode.startswith("train")
    audio_clips = audioclip_sounds()[: len(want[case])]

    def both(model: nnx.Module, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        decibels = model.spectrogram(x, int16_scale=int16)
        return decibels, model(x, int16_scale=int16, batch_statistics=batch)

    decibels, embedding = run(model, both, audio_clips)
    # [B, H, T, 3] -> [B, 1, 3, H/16, T/4]
    cut = decibels.transpose(0, 3, 1, 2)[:, None, :, ::16, ::4]
    spectrogram = want[f"{scale}/x_db"][: len(audio_clips)]
    return {"x_db": distance(cut, spectrogram), "embedding": distance(embedding, want[case])}
