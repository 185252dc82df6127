"""Kinds of Synchformer, PaSST and ImageBind: complete over every key of the official files."""

import json
import types

import jax.numpy as jnp
import network_goldens
import numpy as np
import pytest

from foley_jax.interop import fill, registry
from foley_jax.runtime import network

KINDS = (
    "synchformer",
    "synchformer/visual",
    "synchformer/audio",
    "synchformer/joint",
    "passt",
    "imagebind",
    "imagebind/vision",
    "imagebind/audio",
)


def _file(name):
    """The official keys with zeros of their shapes, which take no memory."""
    keys = json.loads((network_goldens.GOLDENS / f"{name}_keys.json").read_text())
    return {key: np.broadcast_to(np.float32(0), shape) for key, (shape, _) in keys.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_key_has_its_place_and_every_parameter_its_key(kind, monkeypatch):
    # nothing is copied: a gigabyte for what only shapes are asked of
    fake = {"asarray": lambda value, dtype: value, "issubdtype": jnp.issubdtype}
    types_ = {"floating": jnp.floating, "integer": jnp.integer}
    monkeypatch.setattr(fill, "jnp", types.SimpleNamespace(**fake, **types_))
    description = registry.lookup(kind)
    model = registry.model_config(description, {})
    built = network.Network.of(network.shapes(lambda rngs: description.build(model, rngs=rngs)))
    targets = {"/".join(map(str, path)): leaf for path, leaf in _leaves(built.state)}
    filled = fill.fill(description, _file(kind.split("/")[0]), targets)
    assert not filled.initialised
    assert filled.ignored
    assert len(filled.loaded) == len(targets)


def _leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


@pytest.mark.parametrize(
    "name, kind", [("synchformer", "synchformer"), ("passt", "passt"), ("imagebind", "imagebind")]
)
def test_whole_files_are_taken_for_whole_networks(name, kind, monkeypatch, tmp_path):
    keys = list(_file(name))
    monkeypatch.setattr(registry.torch_reader, "read_keys", lambda *a, **k: keys)
    assert registry.recognise(tmp_path / "weights.pth") == kind
