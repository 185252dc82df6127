"""Damaged weight files: single bits flipped, ends cut off; told in words, never taken for whole.

Every bit of a zip file of PyTorch is vouched for. Safetensors and PyTorch's older files have no
checksums: what names and lays out the tensors is checked there, their numbers cannot be.
"""

import io
import re

import numpy as np
import pytest
import safetensors.torch
import torch
import weights_of_others

from foley_jax.interop import registry, torch_reader

WORDS = r"again|whole|is refused|expected|parts of one model|save it in"
FORMATS = ("zip", "legacy", "safetensors")


def _whole(form):
    """The bytes of a small file, and where its numbers begin."""
    state = weights_of_others.state_dict()
    if form == "safetensors":
        data = safetensors.torch.save(state)
        return data, 8 + int.from_bytes(data[:8], "little")
    file = io.BytesIO()
    content = {"state_dict": state, "epoch": 3}
    torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    data = file.getvalue()
    storage = [data.index(v.numpy().tobytes()) for v in state.values() if v.is_floating_point()]
    return data, min(storage)


def _outcome(path, data, want):
    """ "told" with words, "seen" (other keys or shapes, which strict filling tells), "same", or
    "silent" (the same keys and shapes, and other numbers)."""
    path.write_bytes(data)
    try:
        found = torch_reader.read_state_dict(path)
    except ValueError as error:
        line = str(error)
        assert str(path) in line and "\n" not in line, line
        assert re.search(WORDS, line), line
        return "told"
    if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in want.items()}:
        return "seen"
    same = all(np.array_equal(found[key], want[key]) for key in want)
    return "same" if same else "silent"


@pytest.mark.parametrize("form", FORMATS)
def test_flipped_bits_are_told_where_anything_vouches_for_them(tmp_path, form):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    whole, numbers = _whole(form)
    path.write_bytes(whole)
    want = torch_reader.read_state_dict(path)
    rng = np.random.default_rng(0)
    outcomes = []
    for bit in rng.choice(8 * len(whole), 200, replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        outcome = _outcome(path, bytes(data), want)
        outcomes.append(outcome)
        vouched = form == "zip" or bit // 8 < numbers
        assert outcome != "silent" or not vouched, (int(bit), len(whole))
    assert outcomes.count("told") > 40 and outcomes.count("told") + outcomes.count("seen") > 60


@pytest.mark.parametrize("form", FORMATS)
def test_cut_off_files_are_told(tmp_path, form):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    whole, _ = _whole(form)
    path.write_bytes(whole)
    want = torch_reader.read_state_dict(path)
    for size in np.linspace(0, len(whole) - 1, 50).astype(int):
        assert _outcome(path, whole[:size], want) == "told", size


def test_what_does_not_fit_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "kinds", lambda: {"small": weights_of_others.KIND})
    torch.save({**weights_of_others.state_dict(), "stray": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt: .*does not fit this kind"):
        registry.load_torch("small", tmp_path / "w.pt")
