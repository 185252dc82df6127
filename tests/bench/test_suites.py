"""Every suite at its smallest: the peer gives our outputs, so that its time means something.

Sampling and training compile for long and are slow tests; what they are made of is compared here.
"""

import dataclasses
import importlib

import jax
import numpy as np
import pytest

from foley_jax.bench import case, measure, suites
from foley_jax.bench.suites import mm_diffusion, windows

# what they decorate with jax.jit is decorated before the fixture puts another in its place
for module in sorted(set(suites.MODULES.values())):
    importlib.import_module(f"foley_jax.bench.suites.{module}")

pytestmark = pytest.mark.usefixtures("quick_compilation")
ALONE = ("griffin_lim", "cavp_encode", "loader")
NO_PEERS = (
    "first_sample",
    "scaling",
    "long_inputs",
)  # of our commands alone; they have tests of their own
LONG = tuple(name for name in suites.SUITES if name not in (*ALONE, *NO_PEERS))
MAY_BE_EQUAL = ("loader", "mm_train")  # records; a loss and a length, which round alike
NEEDS_DIFFUSERS = ("unet_forward", "vae_decode", "ldm_sample", "ldm_train")


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite", [*ALONE, *(pytest.param(s, marks=pytest.mark.slow) for s in LONG)]
)
def test_ours_and_the_peer_agree(suite, monkeypatch):
    # steps repeat what one does, and programs that are compiled quickly run slowly
    monkeypatch.setattr(windows, "STEPS", 2)
    monkeypatch.setattr(mm_diffusion, "STEPS", 2)
    if suite in NEEDS_DIFFUSERS:
        pytest.importorskip("diffusers", reason="its peers are diffusers' networks")
    pytest.importorskip("torch", reason="peers are torch modules")
    count = 0
    for one in suites.cases(suite, case.Ask(size="tiny")):
        assert one.peers
        result = measure.run(one, repeats=1)
        for beside in result.peers.values():
            # a tenth of what is allowed, and not the same array by accident
            assert beside.difference <= one.tolerance / 10
            assert beside.difference > 0 or suite in MAY_BE_EQUAL
        assert result.flops > 0 or suite in ("griffin_lim", "loader")
        count += 1
    assert count


@pytest.mark.parametrize("suite", ["griffin_lim", "cavp_encode"])
def test_without_peers_ours_is_still_there(suite):
    cases = list(suites.cases(suite, case.Ask(size="tiny", peers=False)))
    assert cases and not any(one.peers for one in cases)
    assert all(one.suite == suite and one.size == "tiny" for one in cases)


def test_an_unknown_suite_is_said():
    with pytest.raises(ValueError, match="no suite 'nothing'; there are unet_forward"):
        next(suites.cases("nothing", case.Ask()))


def test_a_peer_that_is_a_little_off_is_refused():
    torch = pytest.importorskip("torch", reason="peers are torch modules")
    one = next(iter(suites.cases("cavp_encode", case.Ask(size="tiny"))))
    (good,) = one.peers.values()
    # outputs are unit rows of 16: a deviation is about 0.25
    wrong = case.Peer(lambda: good.call() + 0.01 * torch.ones(()), good.output)
    with pytest.raises(measure.Different, match="output of torch differs"):
        measure.run(dataclasses.replace(one, peers={"torch": wrong}), repeats=1)


def test_sizes_grow():
    """Small is more than tiny, and the paper's more than small: what is read off their FLOPs."""
    shapes = {}
    for size in case.SIZES:
        one = next(iter(suites.cases("griffin_lim", case.Ask(size=size, peers=False))))
        shapes[size] = sum(np.size(x) for x in jax.tree.leaves(one.ours._args)) / one.examples
    assert shapes["tiny"] < shapes["small"] <= shapes["paper"]
