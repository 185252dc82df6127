"""LAION-CLAP and MS-CLAP: front ends, first Swin stage, padding; whole networks in tests/slow."""

import json
import re

import clap_goldens
import filled
from goldens import fill
import jax
import network_goldens
import numpy as np
import pytest
import torch

from foley_jax.evaluation.networks import gpt2, htsat, laion_clap, ms_clap, panns, roberta
from foley_jax.interop import fill as filling
from foley_jax.interop import registry

pytestmark = pytest.mark.usefixtures("quick_compilation")

CUT = {"depths": (2, 0, 0, 0), "text_layers": 0, "vocabulary": 3}
_LATER = re.compile(r".*layers\.[123]\.blocks\..*|.*\.(h|encoder\.layer)\.\d+\..*")


def _cut_state(name):
    """The "_g" weights of a network without its later blocks and nearly without vocabulary."""
    keys = json.loads((network_goldens.GOLDENS / f"{name}_keys.json").read_text())
    keys = {k: (s, d.removeprefix("torch.")) for k, (s, d) in keys.items() if not _LATER.match(k)}
    for key in ("text_branch.embeddings.word_embeddings.weight", "caption_encoder.base.wte.weight"):
        if key in keys:
            keys[key] = ([CUT["vocabulary"], *keys[key][0][1:]], keys[key][1])
    state = {
        k: fill.fill_value(k, s, f"public/{name}:") if fill.is_filled(k, s, d) else np.zeros(s, d)
        for k, (s, d) in keys.items()
    }
    return network_goldens.gained(state)


@pytest.mark.parametrize("name", clap_goldens.MODULES)
def test_log_mels(name):
    spec = clap_goldens.MODULES[name].FRONT_END
    got = jax.jit(lambda x: panns.log_mel(x, spec))(clap_goldens.audio_of(name))
    want = network_goldens.golden(name)[0]["logmel"]
    assert network_goldens.distance(np.asarray(got)[:, ::7], want) <= clap_goldens.LIMIT


@pytest.mark.slow
def test_image_and_first_stage():
    """Stage 0 holds a shifted block with its mask, and a merging."""
    model = registry.from_state_dict("laion_clap", _cut_state("laion_clap"), **CUT)

    def outputs(model, audio):
        image = model.audio_branch.image(audio)
        tokens = model.audio_branch.patch_embed(image)
        first = model.audio_branch.layers[0](tokens)
        return image, *(x.reshape(len(audio), -1, x.shape[-1]) for x in (tokens, first))

    audio = clap_goldens.audio_of("laion_clap")
    image, tokens, first = network_goldens.run(model, outputs, audio)
    # bn0 has no tensor of two axes: the image is that of the plain case
    plain, _ = network_goldens.golden("laion_clap")
    want, _ = network_goldens.golden("laion_clap_g")
    found = {
        "image": network_goldens.distance(image[:, ::9, ::5], plain["image"]),
        "tokens_in": network_goldens.distance(tokens[:, [0, 1, 64, 65, 4095]], want["tokens_in"]),
        "stage0": network_goldens.distance(first[:, [0, 1, 32, 1023]], want["tokens_stage0"]),
    }
    assert max(found.values()) <= clap_goldens.LIMIT, found


@pytest.mark.parametrize("frames", [2, 965, 1001])
def test_stretching_is_torchs(frames):
    x = np.random.default_rng(0).standard_normal((1, 1, frames, 3)).astype(np.float32)
    want = torch.nn.functional.interpolate(
        torch.from_numpy(x), (htsat.FRAMES, 3), mode="bicubic", align_corners=True
    )
    got = htsat.stretching(frames) @ x[0, 0]
    np.testing.assert_allclose(got, want[0, 0].numpy(), atol=5e-6)


def test_a_whole_image_needs_no_stretching():
    mel = np.arange(htsat.FRAMES * htsat.MELS, dtype=np.float32).reshape(1, htsat.FRAMES, -1)
    image = np.asarray(htsat.to_image(mel))
    assert image[0, 64 * 3 + 5, 7] == mel[0, 256 * 3 + 7, 5]
    with pytest.raises(ValueError, match="expected"):
        htsat.to_image(np.zeros((1, htsat.FRAMES + 1, htsat.MELS), np.float32))


def test_short_clips_are_repeated_and_of_long_ones_the_middle_counts():
    clip = np.arange(1, 3 * 48000 + 1, dtype=np.float32)
    repeated = laion_clap.fitted(clip)
    assert np.array_equal(repeated[: 9 * 48000], np.tile(clip, 3))
    assert not repeated[9 * 48000 :].any() and len(repeated) == laion_clap.LENGTH
    tiled = ms_clap.fitted(clip)
    assert np.array_equal(tiled, np.tile(clip, 3)[: ms_clap.LENGTH])
    for module in (laion_clap, ms_clap):
        long = np.arange(module.LENGTH + 100, dtype=np.float32)
        assert np.array_equal(module.fitted(long), long[50:-50])
        with pytest.raises(ValueError, match="no samples"):
            module.fitted(clip[:0])


def test_audio_of_another_length_is_refused():
    for name, module in clap_goldens.MODULES.items():
        model = registry.from_state_dict(name, _cut_state(name), **CUT)
        with pytest.raises(ValueError, match=f"expected.*{module.LENGTH}"):
            model.embed_audio(np.zeros((1, 1000), np.float32))


def _texts():
    rng = np.random.default_rng(1)
    ids = rng.integers(3, 20, (2, 9))
    mask = np.asarray([[1] * 9, [1] * 5 + [0] * 4])
    return np.where(mask, ids, 1).astype(np.int32), mask.astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [roberta.Roberta, gpt2.Gpt2])
def test_padding_changes_nothing(kind):
    sizes = {"num_layers": 2, "width": 32, "num_heads": 4, "vocabulary": 20}
    model = filled.module(lambda rngs: kind(**sizes, rngs=rngs))
    ids, mask = _texts()
    call = lambda model, ids, mask: model(ids, mask)  # noqa: E731
    long = network_goldens.run(model, call, ids, mask)[1]
    short = network_goldens.run(model, call, ids[1:, :5], mask[1:, :5])[0]
    if kind is gpt2.Gpt2:
        long = long[:5]
        before = network_goldens.run(model, call, ids[1:, :3], mask[1:, :3])[0]
        np.testing.assert_allclose(before, short[:3], atol=2e-6)  # what follows counts for nothing
    np.testing.assert_allclose(long, short, atol=2e-6)


def test_exclamation_marks_move_the_token_that_stands_for_a_caption():
    model = registry.from_state_dict("ms_clap", _cut_state("ms_clap"), **CUT)
    ids, mask = np.asarray([[1, 2, 0, 1, 2, 0, 0]]), np.asarray([[1, 1, 1, 1, 1, 0, 0]])

    def outputs(model, ids, mask):
        states = model.text_branch(ids, mask)
        return model.embed_text(ids, mask), model.text_projection(states[0])

    got, states = network_goldens.run(model, outputs, ids, mask)
    np.testing.assert_allclose(got[0], states[3], atol=1e-5)
    assert np.abs(got[0] - states[4]).max() > 0.1  # the last token is the next one


@pytest.mark.parametrize("name", clap_goldens.MODULES)
def test_official_files_are_recognised(tmp_path, name):
    keys = json.loads((network_goldens.GOLDENS / f"{name}_keys.json").read_text())
    if name == "laion_clap":
        state = {f"module.{key}": torch.zeros(()) for key in keys}
        torch.save({"epoch": 15, "state_dict": state}, tmp_path / "some.pt")
    else:
        torch.save({"model": {key: torch.zeros(()) for key in keys}}, tmp_path / "some.pt")
    assert registry.recognise(tmp_path / "some.pt") == name


def test_a_key_too_many_or_too_few_is_refused():
    state = _cut_state("ms_clap")
    bias = "caption_encoder.base.h.0.attn.masked_bias"  # of older transformers
    registry.from_state_dict("ms_clap", {**state, bias: np.zeros(())}, **CUT)
    with pytest.raises(filling.ConversionError, match=r"stranger\.weight"):
        registry.from_state_dict("ms_clap", {**state, "stranger.weight": np.zeros(3)}, **CUT)
    del state["caption_encoder.base.ln_f.bias"]
    with pytest.raises(filling.ConversionError, match="text_branch/norm/bias"):
        registry.from_state_dict("ms_clap", state, **CUT)
