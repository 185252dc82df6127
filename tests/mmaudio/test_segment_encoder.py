"""Synchformer's visual encoder: parity of its first block, segments, strict conversion."""

import encoder_goldens
import network_goldens
import numpy as np
import pytest

from foley_jax.interop import fill, registry
from foley_jax.mmaudio.models import synchformer

KIND = "synchformer/visual"
FIRST_BLOCK = r"vfeat_extractor\.(?!blocks\.([1-9]|1\d)\.).*"
TOKENS = [0, 1, 2, 197, 1568]  # of a golden


def test_tokens_and_first_block_are_the_official_ones():
    want, _ = network_goldens.golden("synchformer_g")
    state = encoder_goldens.state_of("synchformer", "_g", FIRST_BLOCK)
    model = registry.from_state_dict(KIND, state, num_layers=1)

    def both(model, x):
        tokens = model.tokens(x)
        return tokens, model.blocks[0](tokens, model.num_times)

    tokens, block = network_goldens.run(model, both, encoder_goldens.synchformer_segments()[1:])
    for got, part in ((tokens, "video_tokens_in"), (block, "video_tokens_block0")):
        error = network_goldens.distance(got[:, TOKENS], want[part][1:])
        assert error <= encoder_goldens.LIMIT, (part, error)


def test_other_parts_of_the_file_are_left_out_and_the_rest_is_strict():
    tiny = {"num_layers": 1}
    state = encoder_goldens.state_of("synchformer", "", FIRST_BLOCK)
    beside = {"vproj.weight": np.ones((2, 2), np.float32), "afeat_extractor.ast.x": np.ones(1)}
    registry.from_state_dict(KIND, state | beside, **tiny)
    with pytest.raises(fill.ConversionError, match="more"):
        registry.from_state_dict(KIND, state | {"vfeat_extractor.more": np.ones(1)}, **tiny)
    del state["vfeat_extractor.temp_embed"]
    with pytest.raises(fill.ConversionError, match="temp_embed"):
        registry.from_state_dict(KIND, state, **tiny)


def test_segments_overlap_by_half():
    video = np.arange(33).reshape(33, 1, 1, 1)
    got = np.asarray(synchformer.segments(video))[..., 0, 0, 0]
    np.testing.assert_array_equal(got[:, 0], [0, 8, 16])
    np.testing.assert_array_equal(got[:, -1], [15, 23, 31])
    with pytest.raises(ValueError, match="15 frames.*16"):
        synchformer.segments(video[:15])


def test_pixels_are_standardised():
    got = synchformer.standardise(np.array([0, 255, 51], np.uint8))
    np.testing.assert_allclose(got, [-1.0, 1.0, -0.6], atol=1e-6)
