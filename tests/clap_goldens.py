"""Seeded weights and recorded outputs of LAION-CLAP and MS-CLAP.

Three cases: "" as filled, "_g" with gain, "_e" so small that a wrong epsilon of a norm shows.
"""

from collections.abc import Mapping
import functools

from flax import nnx
from goldens import fill
import jax
import network_goldens
import numpy as np

from foley_jax.evaluation.networks import laion_clap, ms_clap
from foley_jax.evaluation.protocols import av_benchmark_figures
from foley_jax.interop import registry

LIMIT = 3e-5  # relative L2: float32 in another order; tanh for erf in GELU gives 1.1e-4
CASES = ("", "_g", "_e")
MODULES = {"laion_clap": laion_clap, "ms_clap": ms_clap}
_SMALL = np.float32(1e-3)


def _is_of_norm(key: str, state: Mapping[str, np.ndarray]) -> bool:
    """Whether a tensor is the weight, bias or statistic of a normalisation."""
    if state[key].ndim != 1:
        return False
    if key.endswith((".weight", ".running_mean", ".running_var")):
        return True
    return key.endswith(".bias") and state[key.removesuffix("bias") + "weight"].ndim == 1


def state_of(name: str, case: str) -> Mapping[str, np.ndarray]:
    """The state dict of a network by official name, in one of the cases."""
    state = network_goldens.plain(name, f"public/{name}:")
    if case == "_g":
        return network_goldens.gained(state)
    if case == "_e":
        return {k: v if _is_of_norm(k, state) else v * _SMALL for k, v in state.items()}
    return state


@functools.lru_cache(maxsize=2)
def audio_of(name: str) -> np.ndarray:
    """The two clips of a network's goldens, as the network takes them."""
    _, meta = network_goldens.golden(name)
    module = MODULES[name]
    clips = [
        fill.waveform(f"public/{i}/", seconds, i % 2, sr=module.SAMPLE_RATE_HZ)
        for i, seconds in enumerate(meta["seconds"])
    ]
    return np.stack([module.fitted(clip) for clip in clips])


def _outputs(model: nnx.Module, audio: jax.Array, ids: jax.Array, mask: jax.Array) -> dict:
    """Everything that a golden may hold of both towers, uncropped."""
    tower = model.audio_branch
    image = tower.image(audio)
    tokens = tower.patch_embed(image)
    first = tower.layers[0](tokens)
    x = first
    for layer in list(tower.layers)[1:]:
        x = layer(x)
    pooled = tower.norm(x).mean(axis=(1, 2))
    return {
        "image": image[:, ::9, ::5],
        "tokens_in": tokens.reshape(len(audio), -1, tokens.shape[-1]),
        "tokens_stage0": first.reshape(len(audio), -1, first.shape[-1]),
        "audio_pooled": pooled,
        "audio_embedding": model.audio_projection(pooled),
        "text_states": model.text_branch(ids, mask),
        "text_embedding": model.embed_text(ids, mask),
    }


def errors(name: str, case: str) -> dict[str, float]:
    """Output -> distance from the golden of a network in one case."""
    want, _ = network_goldens.golden(name + case)
    model = registry.from_state_dict(name, state_of(name, case))
    ids, mask = want["input_ids"], want["attention_mask"]
    got = network_goldens.run(model, _outputs, audio_of(name), ids, mask)
    states = got.pop("text_states")
    got["text_pooled" if name == "laion_clap" else "text_hidden"] = states
    got["tokens_in"] = got["tokens_in"][:, [0, 1, 64, 65, 4095]]
    got["tokens_stage0"] = got["tokens_stage0"][:, [0, 1, 32, 1023]]
    if "text_hidden" in want:
        got["text_hidden"] = states[:, :3]
    got["score"] = av_benchmark_figures.cosines(got["audio_embedding"], got["text_embedding"][:2])
    parts = [part for part in want if part in got]
    return {part: network_goldens.distance(got[part], want[part]) for part in parts}
