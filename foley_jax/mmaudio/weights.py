"""Official checkpoints of MMAudio: flow networks, mel autoencoders, vocoders; names only.

CLIP's are in `clip_weights.py`, Synchformer's in `synchformer_weights.py`. See `interop/spec.py`
for the meaning of the fields and `foley_jax/convert.py` for the engine.
"""

import functools
import math

import numpy as np

from foley_jax.interop import fill, spec
from foley_jax.layers import configured
from foley_jax.mmaudio.models import (
    flow_network,
    magnitude_preserving,
    mel_autoencoder,
    mel_vocoder,
)
from foley_jax.vocoders import alias_free
from foley_jax.vocoders import weights as vocoder_weights

Checkpoint = spec.Checkpoint
_QKV = r".*\.attn\.qkv\.(weight|bias)"
_FILTER_TOLERANCE = 1e-6  # float32 of another library


def parts_apart(rows: np.ndarray) -> np.ndarray:
    """Rows [channel, part] as [part, channel]: q, k and v one by one.

    The official code mixes the parts of every channel: row = 3 channel + part.
    """
    return rows.reshape(-1, 3, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def parts_mixed(rows: np.ndarray) -> np.ndarray:
    """The inverse of `parts_apart`."""
    return rows.reshape(3, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def _qkv(rows: np.ndarray) -> np.ndarray:
    return parts_apart(rows).T  # a bias is its own transpose


def _flow(name: str) -> Checkpoint:
    fields = flow_network.CONFIGS[name]
    # the second version has an activation between, which takes a number
    mlp = 2 if fields.get("v2") else 1
    return Checkpoint(
        build=functools.partial(configured.build, flow_network.FlowNetwork),
        model={**configured.defaults(flow_network.FlowNetwork), **fields},
        renames=(
            (r"^(\w+)_input_proj\.0\.", r"\1_input_proj.layer."),
            (r"^(audio|sync)_input_proj\.2\.", r"\1_input_proj.mlp."),
            (rf"^(clip|text)_input_proj\.{mlp}\.", r"\1_input_proj.mlp."),
            (r"adaLN_modulation\.1\.", "modulation.linear."),
            (r"^t_embed\.mlp\.0\.", "t_embed.first."),
            (r"^t_embed\.mlp\.2\.", "t_embed.second."),
        ),
        ignore=((r"t_embed\.freqs|latent_rot|clip_rot", "tables, which are made here"),),
        transforms=((_QKV, _qkv),),
        signature=(
            rf"clip_input_proj\.{mlp}\.w1\.weight",
            r"joint_blocks\.0\.latent_block\.attn\.q_norm\.weight",
            rf"fused_blocks\.{fields.get('fused_depth', 8) - 1}\.ffn\.w1\.weight",
        ),
        file_names=(f"mmaudio_{name}.pth",),
        writing=spec.Writing(container="", transforms=((_QKV, parts_mixed),)),
    )


def used_kernels(state: spec.StateDict) -> spec.StateDict:
    """Raw convolutions [out, in, k] of an autoencoder's file as its code uses them.

    See `magnitude_preserving.normalised_kernel`. q, k and v come one by one.
    """
    used = dict(state)
    for key in [key for key in used if key.endswith(".weight")]:
        raw = np.asarray(used[key], np.float64)
        axes = tuple(range(1, raw.ndim))
        size = magnitude_preserving.EPSILON + np.sqrt(np.square(raw).mean(axes, keepdims=True))
        kernel = (raw / (size * math.sqrt(math.prod(raw.shape[1:])))).astype(np.float32)
        used[key] = parts_apart(kernel) if key.endswith(".qkv.weight") else kernel
    return used


def _autoencoder(name: str, file_name: str) -> Checkpoint:
    return Checkpoint(
        build=functools.partial(configured.build, mel_autoencoder.MelAutoencoder),
        model={
            **configured.defaults(mel_autoencoder.MelAutoencoder),
            **mel_autoencoder.CONFIGS[name],
        },
        prepare=used_kernels,
        signature=(r"encoder\.learnable_gain", r"decoder\.up\.1\.upsample\.conv\.weight"),
        file_names=(file_name,),
    )


def _computed_filter(taps: np.ndarray) -> np.ndarray:
    """A vocoder's low-pass filter [1, 1, K] as [K]; it must be the one that is made here."""
    taps, want = np.reshape(taps, -1), alias_free.kaiser_sinc()
    if taps.shape != want.shape or np.abs(taps - want).max() > _FILTER_TOLERANCE:
        raise fill.ConversionError(
            "a low-pass filter of the vocoder's activations is not the Kaiser-windowed sinc of 12 "
            "taps that every BigVGAN has; the file is damaged or of another network"
        )
    return taps


def _vocoder(name: str, *file_names: str) -> Checkpoint:
    return Checkpoint(
        build=functools.partial(configured.build, mel_vocoder.MelVocoder),
        model={**configured.defaults(mel_vocoder.MelVocoder), **mel_vocoder.CONFIGS[name]},
        renames=vocoder_weights.FILTERS,
        init=(r".*_filter",),  # without the buffers: made here
        transforms=((r".*_filter", _computed_filter),),
        containers=("generator", "state_dict"),
        file_names=file_names,
    )


KINDS: dict[str, Checkpoint] = {
    **{f"mmaudio/{name}": _flow(name) for name in flow_network.CONFIGS},
    "mmaudio/vae_16k": _autoencoder("vae_16k", "v1-16.pth"),
    "mmaudio/vae_44k": _autoencoder("vae_44k", "v1-44.pth"),
    # of Make-An-Audio 2
    "mmaudio/bigvgan_16k": _vocoder("bigvgan_16k", "best_netG.pt"),
    # of nvidia/bigvgan_v2_44khz_128band_512x
    "mmaudio/bigvgan_44k": _vocoder("bigvgan_44k", "bigvgan_generator.pt"),
}
