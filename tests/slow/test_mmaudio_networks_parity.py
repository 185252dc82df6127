"""MMAudio's networks at full size: every recorded output of the official ones.

Float32, seeded weights. CI runs the smallest flow network and autoencoder; the others, of up to
1 G parameters (8 GB), run with `bash launch/test.sh -m by_hand tests/slow`.
"""

import json

import full_size
from goldens import fill
import jax
import jax.numpy as jnp
import mmaudio_goldens
import numpy as np
import pytest

from foley_jax.diffusion import flow, guidance
from foley_jax.interop import registry
from foley_jax.mmaudio import mel as mel_lib
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio.models import flow_network, synchformer
from foley_jax.vocoders import alias_free

SLOW, BY_HAND = pytest.mark.slow, pytest.mark.by_hand
LIMIT = 1e-5  # relative L2: float32 in another order
TRAJECTORY = 3e-5  # four steps
V2 = 3e-4  # its frequencies go up to 10000
GAIN = np.float32(0.6)  # of every weight_g but conv_post's, as the goldens were made
PREFIX = mmaudio_goldens.PREFIX
# of a released network: latents, and every which feature of the synchronisation is recorded
SHAPES = {"small_16k": (2, 250, 20), "small_44k": (1, 345, 40), "large_44k_v2": (1, 345, 40)}
TIMES = {"small_16k": (0.1, 0.7), "small_44k": (0.5,), "large_44k_v2": (0.5,)}
EVERY = {"small_16k": (10, 16), "small_44k": (10, 16), "large_44k_v2": (15, 32)}


def _check(case, got, want, limit=LIMIT):
    worst = max((mmaudio_goldens.distance(got[part], want[part]), part) for part in got)
    print(f"{case}: {len(got)} arrays, worst {worst[0]:.1e} ({worst[1]})")
    assert worst[0] <= limit, worst


def _inputs(name, lengths=(None, 64, 192), suffix="", batch=None):
    """Seeded latents, features and text of a network."""
    b, n, c = SHAPES[name]
    b, (n_own, v, s) = batch or b, lengths

    def inp(part, *shape):
        return mmaudio_goldens.inp(f"{name}_{part}{suffix}", (b, *shape))

    return {
        "latent": inp("latent", n_own or n, c),
        "clip": fill.unit_rows(inp("clip", v, 1024)),
        "sync": inp("sync", s, 768),
    }


def _texts(name):
    b = SHAPES[name][0]
    return {
        part: fill.unit_rows(mmaudio_goldens.inp(f"{name}_{part}", (b, 77, 1024)))
        for part in ("text", "negative")
    }


@pytest.fixture
def streams(monkeypatch):
    """What the blocks of a flow network give, in order, while it is traced."""
    seen, usual = [], flow_network.FlowNetwork._run

    def run(self, block, *args):
        made = usual(self, block, *args)
        seen.append(made)
        return made

    monkeypatch.setattr(flow_network.FlowNetwork, "_run", run)
    return seen


def _told(model, x):
    return model.preprocess_conditions(x["clip"], x["sync"], x["text"])


def _nulls(model, x):
    """No video and no text, and no video and the negative text."""
    b = x["latent"].shape[0]
    return model.empty_conditions(b), model.empty_conditions(b, x["negative"])


def _all_of(model, x, streams, name):
    """What both sets of recorded outputs have in common."""
    told, null = _told(model, x), _nulls(model, x)[0]
    found = {"flow": model.predict_flow(x["latent"], x["t"], told)}
    joint, fused = streams[: len(model.joint_blocks)], streams[len(model.joint_blocks) :]
    each = EVERY[name][1]
    for i, (latent, *_) in enumerate(joint):
        found[f"latent/joint_blocks.{i}"] = latent[:, ::25, ::each]
    for i, latent in enumerate(fused):
        found[f"latent/fused_blocks.{i}"] = latent[:, ::25, ::each]
    sync = told.sync_BSD[:, flow_network.stretched(192, x["latent"].shape[1])]
    return found | {
        "flow_null": model.predict_flow(x["latent"], x["t"], null),
        "t_embed": model.t_embed(x["t"]),
        "clip_f": told.clip_BVD[:, ::8, ::each],
        "sync_f": sync[:, :: EVERY[name][0], ::each],
        "text_f": told.text_BTD[:, ::11, ::each],
        "clip_f_c": model.clip_cond_proj(told.clip_BVD.mean(1)),
        "text_f_c": model.text_cond_proj(told.text_BTD.mean(1)),
    }


@pytest.mark.parametrize(
    "name", [pytest.param("small_16k", marks=SLOW), pytest.param("small_44k", marks=BY_HAND)]
)
def test_a_small_flow_network_matches_block_by_block(name, streams):
    model = registry.from_state_dict(f"mmaudio/{name}", mmaudio_goldens.state(name, name))
    x = {**_inputs(name), **_texts(name), "t": np.asarray(TIMES[name], np.float32)}

    def outputs(model, x):
        found = _all_of(model, x, streams, name)
        null, negative = _nulls(model, x)
        guided = guidance.classifier_free(model.predict_flow, _told(model, x), null, 4.5)
        first_B = jnp.full(x["t"].shape, x["t"][0])
        return found | {
            "flow_negative_text": model.predict_flow(x["latent"], x["t"], negative),
            "guided_4_5": guided(x["latent"], first_B),
        }

    _check(name, full_size.jitted(model, outputs, x), mmaudio_goldens.golden(name))


@BY_HAND
def test_missing_conditions_other_lengths_and_four_steps_match(streams):
    name = "small_16k"
    model = registry.from_state_dict(f"mmaudio/{name}", mmaudio_goldens.state(name, name))
    x = {**_inputs(name), **_texts(name), "t": np.asarray(TIMES[name], np.float32)}
    other = _inputs(name, (166, 42, 120), "_other", batch=1)

    def outputs(model, x, other):
        latent, t, negative = x["latent"], x["t"], _nulls(model, x)[1]
        model.predict_flow(latent, t, _told(model, x))
        joint = streams[: len(model.joint_blocks)]
        found = {}
        for i, (_, clip, text) in enumerate(joint):
            found[f"clip/joint_blocks.{i}"] = clip[:, ::8, ::16]
            found[f"text/joint_blocks.{i}"] = text[:, ::11, ::16]
        empty = {
            "clip": model.empty_clip(2),
            "sync": model.empty_sync(2),
            "text": jnp.broadcast_to(model.empty_string_feat[...], x["text"].shape),
        }
        first = (jnp.arange(2) == 0)[:, None, None]
        mixed = {
            "clip": jnp.where(first, empty["clip"], x["clip"]),
            "sync": jnp.where(first, empty["sync"], x["sync"]),
            "text": jnp.where(first, x["text"], empty["text"]),
        }
        cases = {
            "flow_no_video": {**empty, "text": x["text"]},
            "flow_no_text": {**x, "text": empty["text"]},
            "flow_mixed": mixed,
        }
        for part, case in cases.items():
            found[part] = model.predict_flow(latent, t, _told(model, case))
        told = _told(model, {**other, "text": x["text"][:1]})
        found["flow_other_lengths"] = model.predict_flow(other["latent"], t[:1], told)
        guided = guidance.classifier_free(model.predict_flow, _told(model, x), negative, 4.5)
        for steps in (1, 2, 4):
            end = flow.sample(guided, latent, num_steps=steps, stop=steps / 4)
            found["euler4/end" if steps == 4 else f"euler4/step{steps}"] = end
        found["euler4/unnormalised"] = model.unnormalise(end)[:, ::5]
        return found

    got, want = full_size.jitted(model, outputs, x, other), mmaudio_goldens.golden(f"{name}_more")
    for part in ("euler4/step1", "euler4/step2"):
        got[part] = got[part][:, ::5]
    walk = {part: got.pop(part) for part in list(got) if part.startswith("euler4")}
    _check(f"{name}, more", got, want)
    _check(f"{name}, four steps", walk, want, TRAJECTORY)


@BY_HAND
def test_the_largest_flow_network_matches_block_by_block(streams):
    name = "large_44k_v2"
    model = registry.from_state_dict(f"mmaudio/{name}", mmaudio_goldens.state(name, name))
    x = {**_inputs(name), **_texts(name), "t": np.asarray(TIMES[name], np.float32)}
    outputs = lambda model, x: _all_of(model, x, streams, name)  # noqa: E731
    _check(name, full_size.jitted(model, outputs, x), mmaudio_goldens.golden(name), V2)


def _autoencoder(name, bands):
    state = mmaudio_goldens.state(name, name)
    constants = json.loads((mmaudio_goldens.GOLDENS / "vae_constants.json").read_text())
    for part in ("mean", "std"):
        values = np.asarray(constants[f"data_{part}_{bands}d"], np.float32)
        state[f"data_{part}"] = values.reshape(1, bands, 1)
    return registry.from_state_dict(f"mmaudio/{name}", state)


@pytest.mark.parametrize(
    ("name", "bands", "channels"),
    [
        pytest.param("vae_16k", 80, 20, marks=SLOW),
        pytest.param("vae_44k", 128, 40, marks=BY_HAND),
    ],
)
def test_an_autoencoder_and_its_features_of_audio_match(name, bands, channels):
    """Short and long mels, and the statistics of a wave as they are stored for training."""
    model = _autoencoder(name, bands)
    rates = rates_lib.RATES[name.removeprefix("vae_")]
    hz, hop = rates.audio.sample_rate_hz, rates.audio.hop
    wave = fill.waveform(PREFIX, 5.0, 0, hz)[3 * hz :][: 120 * hop]

    def inp(part, *shape):
        return mmaudio_goldens.inp(f"{name}_{part}", (1, *shape))

    x = {
        "mel": -2 + inp("mel", bands, 48),
        "z": inp("z", channels, 24).swapaxes(1, 2),
        "mel_long": -2 + inp("mel_long", bands, 250),
        "z_long": inp("z_long", channels, 125).swapaxes(1, 2),
        "wave": wave[None],
    }

    def encoded(model, mel):
        mean, logvar = model.encode(mel)
        return {"mean": mean, "logvar": logvar, "std": jnp.exp(0.5 * logvar)}

    def outputs(model, x):
        own = {"short": encoded(model, x["mel"]), "long": encoded(model, x["mel_long"])}
        own["wave"] = encoded(model, mel_lib.log_mel(x["wave"], rates))
        return own, model.decode(x["z"]), model.decode(x["z_long"])

    own, short, long = full_size.jitted(model, outputs, x)
    turned = {case: {k: v.swapaxes(1, 2) for k, v in parts.items()} for case, parts in own.items()}
    got = {part: turned["short"][part] for part in ("mean", "logvar")} | {"decoded": short}
    _check(name, got, mmaudio_goldens.golden(name))
    want = mmaudio_goldens.golden(f"{name}_more")
    mean, logvar = turned["long"]["mean"], turned["long"]["logvar"]
    kl = 0.5 * np.square(mean) + np.exp(logvar) - 1 - logvar  # official: half of one term alone
    noise = inp("noise", channels, 125)
    got = {
        "mean": mean,
        "std": turned["long"]["std"],
        "decoded": long[:, ::2, ::2],
        "kl_mean": kl.mean((1, 2)),
        "sample": mean + turned["long"]["std"] * noise,
    }
    _check(f"{name}, more", got, want)
    got = {part: own["wave"][part] for part in ("mean", "std")}
    _check(f"{name}, of audio", got, mmaudio_goldens.golden(f"chain_{rates.name}"))


def _generator(name, tag):
    keys = json.loads((mmaudio_goldens.GOLDENS / f"{name}_keys.json").read_text())
    state = mmaudio_goldens.filled_state(keys, tag)
    for key in state:
        if key.endswith(".filter"):
            state[key] = alias_free.kaiser_sinc().reshape(1, 1, -1)
        elif key.endswith("weight_g") and not key.startswith("conv_post"):
            state[key] = state[key] * GAIN
    return registry.from_state_dict(f"mmaudio/{name}", state)


@BY_HAND
def test_the_vocoder_of_44_khz_matches():
    model = _generator("bigvgan_44k", "bigvgan_44k")
    mel = -2 + mmaudio_goldens.inp("bigvgan_44k_mel", (1, 128, 14))
    wave = full_size.jitted(model, lambda model, mel: model(mel), mel)
    _check("bigvgan_44k", {"wave": wave[:, None]}, mmaudio_goldens.golden("bigvgan_44k"))


@BY_HAND
def test_latents_become_the_official_audio():
    want = mmaudio_goldens.golden("chain_16k")
    latent = mmaudio_goldens.inp("chain_latent", (2, 9, 20))
    decode = lambda model, latent: model.decode(latent)  # noqa: E731
    mel = full_size.jitted(_autoencoder("vae_16k", 80), decode, latent)
    generator = _generator("bigvgan_16k", "bigvgan_16k_g")
    wave = full_size.jitted(generator, lambda model, mel: model(mel), mel)
    _check("chain_16k", {"decoded_mel": mel, "decoded_wave": wave[:, None]}, want)


@BY_HAND
def test_the_visual_encoder_matches():
    name = "synchformer_visual"
    keys = json.loads((mmaudio_goldens.GOLDENS / f"{name}_keys.json").read_text())
    state = mmaudio_goldens.filled_state(keys, "synchformer")
    for key, value in state.items():
        if value.ndim >= 3 and value.shape[0] == 1:
            state[key] = value * np.float32(0.5 * np.sqrt(np.prod(value.shape[1:])))
    model = registry.from_state_dict("synchformer/visual", state)
    video = fill.structured("mmaudio_sync_video", PREFIX, (1, 33, 3), (14, 14), (16, 16))
    frames_FHWC = np.moveaxis((video[0] - 0.5) / 0.5, 1, -1).astype(np.float32)
    segments = np.stack([frames_FHWC[8 * i : 8 * i + 16] for i in range(3)])
    features = jax.device_get(full_size.jitted(model, lambda model, x: model(x), segments))
    assert synchformer.segments(frames_FHWC).shape == segments.shape
    got = {"features": features.reshape(1, 24, 768)}
    _check(name, got, mmaudio_goldens.golden(name))


@BY_HAND
def test_the_whole_of_clip_matches():
    keys = json.loads((mmaudio_goldens.GOLDENS / "clip_keys.json").read_text())
    state = mmaudio_goldens.filled_state(keys, "clip")
    model = registry.from_state_dict("open_clip/vit_h_14_378", state)
    want = mmaudio_goldens.golden("clip_full")
    image = fill.structured("mmaudio_clip_image", PREFIX, (1, 3), (32, 32), (12, 12))

    def outputs(model, image, ids):
        return {
            "image": model.encode_image(image),
            "image_unnormalised": model.encode_image(image, normalize=False),
            "text": model.encode_text(ids)[:, ::4, ::8],
            "text_raw": model.encode_text(ids, normalize=False)[:, ::4, ::8],
        }

    ids = want["ids"].astype(np.int32)
    _check("clip", full_size.jitted(model, outputs, np.moveaxis(image, 1, -1), ids), want)
