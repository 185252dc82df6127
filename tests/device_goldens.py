"""The main networks on this process' device against the official code's recorded outputs.

  python tests/device_goldens.py --out=goldens.json             # on a GPU or TPU; minutes
  python tests/device_goldens.py --platform=cpu --small --out=goldens.json

Pytest holds the same networks to the same files on a CPU; this is for the day an accelerator is
there (launch/gpu_report.sh). float32 is computed with `jax_default_matmul_precision="highest"`.
"""

import argparse
from collections.abc import Callable, Mapping
import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

from flax import nnx
from goldens import fill
import jax
import jax.numpy as jnp
from mm_diffusion import official
import numpy as np
from slow import full_size

from foley_jax.interop import registry
from foley_jax.runtime import network as network_lib

PREFIX = full_size.PREFIX
# float32: worst difference over the deviation of the truth, as tests/README.md says for networks.
# bfloat16: root of the mean square over the same; tests hold small networks to it on CPUs
LIMITS = {"float32": 2e-4, "bfloat16": 5e-2}


@dataclasses.dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
      kind: of the registry.
      state: makes the official state dict.
      call: (model, *args) -> outputs, a tuple.
      args: inputs.
      want: makes the official outputs, and cuts ours as they were: outputs -> pairs.
      fields: of the model, where they are not the paper's.
    """

    kind: str
    state: Callable[[], Mapping[str, np.ndarray]]
    call: Callable[..., tuple[jax.Array, ...]]
    args: Callable[[], tuple[Any, ...]]
    want: Callable[[tuple[np.ndarray, ...]], list[tuple[np.ndarray, np.ndarray]]]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _official(name: str) -> Mapping[str, np.ndarray]:
    with np.load(full_size.GOLDENS / f"{name}.npz") as file:
        return dict(file)


def _unet_args() -> tuple[Any, ...]:
    x = full_size.last(fill.inp("unet_x", (1, 4, 16, 64), PREFIX))
    features = fill.unit_rows(fill.inp("video_feat", (1, 32, 512), PREFIX))
    return x, np.float32([959.04]), features


def _cavp_args() -> tuple[Any, ...]:
    video = fill.structured("cavp_video_v16", PREFIX, (2, 16, 3), (7, 7), (32, 32))
    spec = fill.structured("cavp_spec_s256", PREFIX, (2,), (16, 32), (8, 8))
    return video.transpose(0, 1, 3, 4, 2), spec  # [B, T, C, H, W] -> [B, T, H, W, C]


def _cavp_state() -> dict[str, np.ndarray]:
    return {**full_size.state("cavp"), "logit_scale": np.float32(np.log(1 / 0.07))}


def _coupled(file: str, inputs: Mapping[str, tuple[int, ...]], every: int, **fields: Any) -> Case:
    arrays, meta = official.golden(file)
    tiny = "tiny" in file
    prefix, keys = (PREFIX + "tiny:", "tiny_keys") if tiny else (PREFIX, "base_keys")

    def args() -> tuple[Any, ...]:
        given = (official.inputs(name, shape) for name, shape in inputs.items())
        return (*given, np.asarray(meta["t"]), official.shifts("shift_i", file))

    def want(outputs: tuple[np.ndarray, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        truth = [official.channels_last(arrays[f"shift_i/{name}"]) for name in ("video", "audio")]
        return [(outputs[0][:, ::every], truth[0]), (outputs[1], truth[1])]

    return Case(
        "mm_diffusion/base",
        lambda: official.state(keys, prefix),
        lambda model, *args: model(*args),
        args,
        want,
        fields,
    )


def _super_resolution() -> Case:
    arrays, meta = official.golden("sr_full")

    def args() -> tuple[Any, ...]:
        x = fill.inp("sr.x", (1, 3, 256, 256), PREFIX)
        low = fill.inp("sr.low64", (1, 3, 64, 64), PREFIX).clip(-1, 1)
        return full_size.last(x), full_size.last(low), np.asarray(meta["t"])

    return Case(
        "mm_diffusion/super_resolution",
        lambda: official.state("sr_keys", PREFIX + "sr:"),
        lambda model, *args: (model(*args),),
        args,
        lambda outputs: [(full_size.first(outputs[0])[:, :, ::2, ::2], arrays["out_2x"])],
    )


def small_cases() -> dict[str, Callable[[], Case]]:
    """Networks that a CPU computes in seconds."""
    inputs = {"tiny.video": (2, 16, 3, 16, 16), "tiny.audio": (2, 1, 1024)}
    return {"coupled U-Net, tiny": lambda: _coupled("unet_tiny", inputs, 1, **official.TINY)}


def cases() -> dict[str, Callable[[], Case]]:
    """Name -> what makes a case, of the paper's networks."""
    inputs = {"video": (1, 16, 3, 64, 64), "audio": (1, 1, 25600)}
    return {
        "U-Net behind the conditioner": lambda: Case(
            "diff_foley/ldm",
            lambda: full_size.state("ldm"),
            lambda model, x, t_B, features: (model.denoise(x, t_B, model.conditioner(features)),),
            _unet_args,
            lambda outputs: [(full_size.first(outputs[0]), _official("unet")["chain/out"])],
        ),
        "autoencoder, decoding": lambda: Case(
            "diff_foley/ldm",
            lambda: full_size.state("ldm"),
            lambda model, z: (model.decode_mel(z),),
            lambda: (full_size.last(fill.inp("vae_z", (1, 4, 16, 64), PREFIX)),),
            lambda outputs: [(outputs[0], _official("vae")["dec/spec_channel0"])],
        ),
        "CAVP, features": lambda: Case(
            "diff_foley/cavp",
            _cavp_state,
            lambda model, video, spec: (model.encode_video(video), model.encode_spec(spec)),
            _cavp_args,
            lambda outputs: [
                (outputs[0], _official("cavp")["v16/feat"]),
                (outputs[1], _official("cavp")["s256/feat"]),
            ],
        ),
        "coupled U-Net": lambda: _coupled("unet_base", inputs, 3),
        "super-resolution": _super_resolution,
        **small_cases(),
    }


def distances(case: Case, dtype: str) -> tuple[float, float]:
    """Returns the worst and the mean square difference, over the deviation of the truth."""
    kind = registry.lookup(case.kind)
    model = registry.from_state_dict(case.kind, case.state(), **case.fields)
    config = registry.model_config(kind, case.fields)
    fresh = network_lib.shapes(lambda keys: kind.build(config, dtype=jnp.dtype(dtype), rngs=keys))
    graphdef, arrays = nnx.split(fresh)[0], nnx.to_pure_dict(nnx.state(model))
    run = jax.jit(lambda arrays, *args: case.call(nnx.merge(graphdef, arrays), *args))
    outputs = tuple(np.asarray(x, np.float32) for x in run(arrays, *case.args()))
    worst = mean = 0.0
    for got, want in case.want(outputs):
        if got.shape != want.shape:
            raise ValueError(f"output of shape {got.shape}, recorded is {want.shape}")
        scale = max(float(want.std()), 1e-12)
        worst = max(worst, float(np.abs(got - want).max()) / scale)
        mean = max(mean, float(np.sqrt(np.mean((got - want) ** 2))) / scale)
    return worst, mean


def measured(name: str, case: Case, dtype: str) -> dict[str, Any]:
    """One line of the report."""
    began = time.monotonic()
    precision = "highest" if dtype == "float32" else "default"
    with jax.default_matmul_precision(precision):
        worst, mean = distances(case, dtype)
    figure, limit = (worst if dtype == "float32" else mean), LIMITS[dtype]
    return {
        "network": name,
        "dtype": dtype,
        "worst": worst,
        "mean": mean,
        "limit": limit,
        "good": bool(figure <= limit),
        "seconds": time.monotonic() - began,
    }


def main() -> None:
    """Compares every network in both types; exit code 1 if one is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default="", help="cpu, gpu, tpu (default: what is there)")
    parser.add_argument("--small", action="store_true", help="only networks for a CPU")
    parser.add_argument("--out", default="goldens.json", help="JSON of all distances")
    asked = parser.parse_args()
    if asked.platform:
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(asked.platform, asked.platform))
    lines = []
    for name, make in (small_cases() if asked.small else cases()).items():
        for dtype in LIMITS:
            lines.append(measured(name, make(), dtype))
            print(json.dumps(lines[-1]), flush=True)
            pathlib.Path(asked.out).write_text(json.dumps(lines, indent=1) + "\n")
    sys.exit(0 if all(line["good"] for line in lines) else 1)


if __name__ == "__main__":
    main()
