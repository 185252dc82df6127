"""Byte-level BPE of captions, exactly as the official tools of the two CLAPs ask for it."""

import json
import sys

import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import captions

GOLDEN = json.loads((network_goldens.GOLDENS / "bpe.json").read_text())
KINDS = {
    "laion_clap": (captions.for_laion_clap, "roberta_vocab"),
    "ms_clap": (captions.for_ms_clap, "gpt2_vocab"),
}


@pytest.fixture(scope="module")
def tokenisers(tmp_path_factory):
    """Both, with the made-up vocabularies of the golden."""
    pytest.importorskip("transformers")
    found = {}
    for name, (make, vocabulary) in KINDS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "vocab.json").write_text(json.dumps(GOLDEN[vocabulary]))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *GOLDEN["merges"], ""]))
        found[name] = make(folder)
    return found


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["text"][:20])
def test_ids_are_exact(tokenisers, name, case):
    ids, mask = tokenisers[name](case["text"])
    assert ids.tolist() == case[name]
    assert mask.sum() == case[f"{name}_tokens"]
    assert np.array_equal(mask, np.arange(len(mask)) < case[f"{name}_tokens"])


@pytest.mark.parametrize("name", KINDS)
def test_missing_files_are_named_with_their_address(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"vocab\.json and merges\.txt.*huggingface\.co"):
        KINDS[name][0](tmp_path)


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    for name in captions.FILES:
        (tmp_path / name).write_text("")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"foley_jax\[eval\]"):
        captions.for_ms_clap(tmp_path)
