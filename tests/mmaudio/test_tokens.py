"""CLIP's tokens, where its tokenizer's libraries are installed."""

import gzip
import importlib.util
import json
from pathlib import Path
import sys

import mmaudio_goldens
import pytest

from foley_jax.mmaudio import tokens

CASES = json.loads((mmaudio_goldens.GOLDENS / "tokens.json").read_text())


def merges_file():
    """open_clip's file of CLIP's merges, if that package is installed; it is not part of ours."""
    open_clip = importlib.util.find_spec("open_clip")
    if open_clip is None:
        pytest.skip("open_clip, which has CLIP's merges, is not installed")
    return Path(open_clip.origin).parent / tokens.MERGE_FILES[0]


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("tokenizers")
    pytest.importorskip("ftfy")
    return tokens.Tokenizer(merges_file())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"][:20])
def test_ids_are_the_official_ones(tokenizer, case):
    ids = tokenizer([case["text"]])[0].tolist()
    count = len(case["ids"])
    assert ids[:count] == case["ids"] and not any(ids[count:])


def test_another_file_is_refused(tmp_path):
    path = tmp_path / tokens.MERGE_FILES[0]
    path.write_bytes(gzip.compress(b"# title\na b\nc d\n"))
    with pytest.raises(ValueError, match="holds 2 merges, expected CLIP's 48894"):
        tokens.read_pairs(path)


def test_missing_libraries_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'foley_jax\[mmaudio\]'"):
        tokens.Tokenizer(tmp_path / "merges.txt")


def test_merges_are_found_in_the_first_folder_that_has_them(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "merges.txt").touch()
    assert tokens.find_merges([tmp_path / "a", tmp_path / "b"]) == tmp_path / "b" / "merges.txt"
    assert tokens.find_merges([tmp_path / "a"]) is None
