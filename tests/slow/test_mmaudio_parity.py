"""MMAudio's vocoder and towers of CLIP at full width (float32, seeded weights).

CLIP has three layers in each tower here, at full width.
"""

import json
import re

import full_size
from goldens import fill
import mmaudio_goldens
import numpy as np
import pytest

from foley_jax.interop import registry
from foley_jax.vocoders import alias_free

pytestmark = pytest.mark.slow
LIMIT = 1e-5  # relative L2: float32 in another order; the official code against float64: 1.4e-6
GAIN = np.float32(0.6)  # of every weight_g but conv_post's, as the goldens were made


def _check(case, got, want):
    for part, value in got.items():
        error = mmaudio_goldens.distance(value, want[part])
        print(case, part, f"{error:.1e}")
        assert error <= LIMIT, (part, error)


def test_the_vocoder_matches():
    name = "bigvgan_16k_g"
    keys = json.loads((mmaudio_goldens.GOLDENS / "bigvgan_16k_keys.json").read_text())
    state = mmaudio_goldens.filled_state(keys, name)
    for key in state:
        if key.endswith(".filter"):
            state[key] = alias_free.kaiser_sinc().reshape(1, 1, -1)
        elif key.endswith("weight_g") and not key.startswith("conv_post"):
            state[key] = state[key] * GAIN
    model = registry.from_state_dict("mmaudio/bigvgan_16k", state)
    mel = -2 + mmaudio_goldens.inp(f"{name}_mel", (1, 80, 24))
    wave = full_size.jitted(model, lambda model, mel: model(mel), mel)
    _check(name, {"wave": wave[:, None]}, mmaudio_goldens.golden(name))


def test_towers_of_clip_match():
    keys = json.loads((mmaudio_goldens.GOLDENS / "clip_keys.json").read_text())
    few = {
        key: entry
        for key, entry in keys.items()
        if not (layer := re.search(r"resblocks\.(\d+)", key)) or int(layer[1]) < 3
    }
    model = registry.from_state_dict(
        "open_clip/vit_h_14_378",
        mmaudio_goldens.filled_state(few, "clip"),
        vision_layers=3,
        text_layers=3,
    )
    want = mmaudio_goldens.golden("clip")
    image = fill.structured("mmaudio_clip_image", "public/", (1, 3), (32, 32), (12, 12))
    image_BHWC = np.moveaxis(image, 1, -1)

    def outputs(model, image, ids):
        raw = model.encode_text(ids, normalize=False)
        return {
            "image_384": model.encode_image(image),
            "image_unnormalised": model.encode_image(image, normalize=False),
            "text": model.encode_text(ids)[:, ::4, ::8],
            "text_raw": raw[:, ::4, ::8],
        }

    _check("clip", full_size.jitted(model, outputs, image_BHWC, want["ids"].astype(np.int32)), want)
