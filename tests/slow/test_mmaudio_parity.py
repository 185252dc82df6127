"""MMAudio's networks at full size against the official ones (float32, seeded weights).

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


def test_the_small_flow_network_matches():
    name, inp = "small_16k", mmaudio_goldens.inp
    model = registry.from_state_dict(f"mmaudio/{name}", mmaudio_goldens.state(name, name))
    x = {
        "latent": inp(f"{name}_latent", (2, 250, 20)),
        "clip": fill.unit_rows(inp(f"{name}_clip", (2, 64, 1024))),
        "sync": inp(f"{name}_sync", (2, 192, 768)),
        "text": fill.unit_rows(inp(f"{name}_text", (2, 77, 1024))),
        "t": np.asarray([0.1, 0.7], np.float32),
    }

    def outputs(model, x):
        conditions = model.preprocess_conditions(x["clip"], x["sync"], x["text"])
        return {
            "flow": model.predict_flow(x["latent"], x["t"], conditions),
            "clip_f": conditions.clip_BVD[:, ::8, ::16],
            "text_f": conditions.text_BTD[:, ::11, ::16],
        }

    _check(name, full_size.jitted(model, outputs, x), mmaudio_goldens.golden(name))


def test_the_mel_autoencoder_matches():
    name = "vae_16k"
    state = mmaudio_goldens.state(name, name)
    constants = json.loads((mmaudio_goldens.GOLDENS / "vae_constants.json").read_text())
    for part in ("mean", "std"):
        values = np.asarray(constants[f"data_{part}_80d"], np.float32)
        state[f"data_{part}"] = values.reshape(1, 80, 1)
    model = registry.from_state_dict(f"mmaudio/{name}", state)
    mel = -2 + mmaudio_goldens.inp(f"{name}_mel", (1, 80, 48))
    latent = mmaudio_goldens.inp(f"{name}_z", (1, 20, 24)).swapaxes(1, 2)

    def outputs(model, mel, latent):
        mean, logvar = (x.swapaxes(1, 2) for x in model.encode(mel))
        return {"mean": mean, "logvar": logvar, "decoded": model.decode(latent)}

    _check(name, full_size.jitted(model, outputs, mel, latent), mmaudio_goldens.golden(name))


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
