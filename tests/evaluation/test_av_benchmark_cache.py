"""Caches that av-benchmark and we exchange."""

import numpy as np
import pytest
import torch

from foley_jax.evaluation.protocols import av_benchmark_cache as caches

# stem -> what av-benchmark's extract.py and extract_video.py save, with two audio clips a batch
SAVED = {
    "pann_features": {"logits": (527,), "2048": (2048,), "clipwise_output": (527,)},
    "vggish_features": (8, 128),
    "passt_features_embed": (768,),
    "passt_logits": (527,),
    "imagebind_video": (1024,),
    "imagebind_audio": (1024,),
    "clap_laion_text": (512,),
    "clap_laion_audio": (512,),
    "clap_ms_text": (1024,),
    "clap_ms_audio": (1024,),
    "synchformer_video": (24, 8, 768),
    "synchformer_audio": (24, 6, 768),
}


def _batch(shape):
    """Returns what comes out of a network for two audio clips."""
    if isinstance(shape, dict):
        return {key: _batch(part) for key, part in shape.items()}
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def _as_saved(name):
    """stem -> tensor or dict of tensors: windows on the batch, as `features[i]` are."""
    batch = _batch(SAVED[name])
    if isinstance(batch, dict):
        return {stem: {k: v[i] for k, v in batch.items()} for i, stem in enumerate("ab")}
    return {stem: batch[i] for i, stem in enumerate("ab")}


def _same(one, other):
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    return one.dtype == other.dtype == torch.float32 and torch.equal(one, other)


@pytest.mark.parametrize("name", caches.FILES)
def test_caches_go_to_and_fro(tmp_path, name):
    saved = _as_saved(name)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    torch.save(saved, theirs / f"{name}.pth")
    items = caches.read(theirs, name)
    path = caches.write(ours, name, dict(reversed(items.items())), {"sounds": "x"})
    loaded = torch.load(path, weights_only=True)
    assert path.name == f"{name}.pth" and _same(loaded, saved)
    assert caches.note_of(path) == {"sounds": "x"} and caches.note_of(theirs / path.name) is None


def test_every_file_of_the_tool_is_known():
    assert set(SAVED) == set(caches.FILES)
    with pytest.raises(ValueError, match="unknown cache 'clap'; known caches: pann_features"):
        caches.path_of("x", "clap")


def test_what_the_tool_writes_itself_is_not_overwritten(tmp_path):
    torch.save(_as_saved("passt_logits"), tmp_path / "passt_logits.pth")
    items = caches.read(tmp_path, "passt_logits")
    with pytest.raises(ValueError, match="was not written by foley_jax"):
        caches.write(tmp_path, "passt_logits", items, {})
    caches.write(tmp_path / "own", "passt_logits", items, {})
    caches.write(tmp_path / "own", "passt_logits", {"a": items["a"]}, {})
    assert list(caches.read(tmp_path / "own", "passt_logits")) == ["a"]


def test_own_files_are_found_for_their_audio_only(tmp_path):
    torch.save(_as_saved("passt_logits"), tmp_path / "passt_logits.pth")
    items = caches.read(tmp_path, "passt_logits")
    caches.write(tmp_path / "own", "passt_logits", items, {"sounds": "x"})
    folders = [tmp_path / "gone", tmp_path / "own", tmp_path]

    def found(made_of):
        return caches.find(folders, "passt_logits", made_of)

    assert found({"sounds": "x"}) == folders[1:]
    assert found({"sounds": "y"}) == found(None) == folders[2:]


@pytest.mark.parametrize(
    ("name", "item", "complaint"),
    [
        ("clap_ms_audio", torch.tensor(0.5), r"'b', features: shape \[\], expected \[1024\]"),
        ("vggish_features", torch.zeros(0, 128), r"shape \[0, 128\], expected \[any, 128\]"),
        ("passt_logits", torch.zeros(768), r"'b', logits: shape \[768\], expected \[527\]"),
        ("passt_logits", torch.full((527,), float("nan")), "not finite"),
        ("passt_logits", torch.zeros(527, dtype=torch.int32), "int32, expected float32"),
        ("passt_logits", {"logits": torch.zeros(527)}, "unlike what av-benchmark writes"),
        ("pann_features", torch.zeros(527), "unlike what av-benchmark writes"),
        ("pann_features", {"2048": torch.zeros(2048)}, r"holds \['2048'\], expected"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, name, item, complaint):
    saved = {**_as_saved(name), "b": item}
    torch.save(saved, tmp_path / f"{name}.pth")
    with pytest.raises(ValueError, match=complaint):
        caches.read(tmp_path, name)


def test_only_what_the_tool_reads_is_written(tmp_path):
    with pytest.raises(ValueError, match="'a', features: shape"):
        caches.write(tmp_path, "clap_ms_text", {"a": {"features": np.zeros(3, "f4")}}, {})
    path = caches.write(tmp_path, "clap_ms_text", {"a": {"features": np.zeros(1024)}}, {})
    assert torch.load(path, weights_only=True)["a"].dtype == torch.float32
