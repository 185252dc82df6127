"""Melception against the public PyTorch module."""

import network_goldens
import numpy as np
import pytest

from foley_jax import convert
from foley_jax.evaluation.networks import melception
from foley_jax.layers import strict_fill

PREFIX = "public/melception:"


# the plain case, whose outputs hardly depend on the input, is in tests/slow
def test_network_matches_the_public_module():
    errors = network_goldens.melception("melception_g", slice(1, 2))
    print(errors)
    assert len(errors) == 6
    assert max(errors.values()) <= network_goldens.NETWORK_LIMIT, errors
    # the recorded rows differ by far more than the limit: the input is not ignored
    want = network_goldens.golden("melception_g")[0]["2048"]
    assert network_goldens.distance(want[:1], want[1:]) > 50 * network_goldens.NETWORK_LIMIT


def test_conversion_is_strict():
    state = dict(network_goldens.plain("melception", PREFIX))
    del state["Mixed_6b.branch7x7_2.bn.running_var"]
    state["Mixed_6b.branch7x7_9.conv.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(strict_fill.ConversionError) as error:
        convert.from_state_dict("melception", state)
    for part in ("Mixed_6b/branch7x7_2/bn/var", "Mixed_6b.branch7x7_9.conv.weight"):
        assert part in str(error.value)


def test_too_small_mels_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 22, 848\), expected .* at least 23 x 23"):
        melception.Melception.__call__(None, np.zeros((1, 22, 848), np.float32))
