"""Melception against the public PyTorch module."""

from goldens import fill
import network_goldens
import numpy as np
import pytest

from foley_jax import convert
from foley_jax.evaluation.networks import melception
from foley_jax.layers import strict_fill

PREFIX = "public/melception:"
TAPS = ("64", "192", "768", "2048", "logits_unbiased", "logits")


# the plain case, whose outputs hardly depend on the input, is in tests/slow
def test_network_matches_the_public_module():
    want, meta = network_goldens.golden("melception_g")
    assert meta["fill_prefix"] == PREFIX
    state = network_goldens.gained(network_goldens.plain("melception", PREFIX))
    model = convert.from_state_dict("melception", state)
    # one of the golden's two mels: rows do not depend on each other
    mel = 0.5 * fill.inp("melception.mel", (2, 80, meta["T"]), "public/")[1:]
    got = network_goldens.run(model, lambda model, x: model(x), mel)
    for name in TAPS:
        error = network_goldens.distance(got[name], want[name][1:])
        print(name, f"{error:.1e}")
        assert error <= network_goldens.NETWORK_LIMIT, (name, error)
    # the recorded rows differ by far more than the limit: the input is not ignored
    between = network_goldens.distance(want["2048"][:1], want["2048"][1:])
    assert between > 50 * network_goldens.NETWORK_LIMIT


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
