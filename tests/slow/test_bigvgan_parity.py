"""Full-size BigVGAN generators against the official network's output (float32, seeded weights)."""

import json
import pathlib

import full_size
from goldens import fill
import numpy as np
import pytest

from foley_jax.interop import registry

pytestmark = pytest.mark.slow
GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "evaluation"
GAIN = np.float32(0.6)  # of every weight_g but conv_post's, as the goldens were made


def _weights(name: str, prefix: str) -> dict[str, np.ndarray]:
    keys = json.loads((GOLDENS / f"{name}_keys.json").read_text())
    state = {}
    for key, (shape, _) in keys.items():
        value = fill.fill_value(key, shape, prefix)
        if key.endswith("weight_g") and not key.startswith("conv_post"):
            value = value * GAIN
        state[key] = value
    return state


@pytest.mark.parametrize("name", ["bigvgan_base_22khz_80band", "bigvgan_v2_22khz_80band_256x"])
def test_wave_matches_the_official_generator(name):
    golden = np.load(GOLDENS / f"{name}.npz")
    meta = json.loads(bytes(golden["__meta__"]))
    prefix = meta["fill_prefix"]
    kind = "bigvgan/" + name.removeprefix("bigvgan_")
    model = registry.from_state_dict(kind, _weights(name, prefix))
    mel_BFT = fill.inp("bigvgan.mel", (meta["B"], 80, meta["T"]), "public/")
    got = full_size.jitted(model, lambda model, x: model(x), mel_BFT.transpose(0, 2, 1))
    want = golden["wave"][:, 0]
    assert got.shape == want.shape and want.std() > 1e-3
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    print(name, f"{error:.1e}")
    assert error <= 1e-4
