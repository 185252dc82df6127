"""Texts as CLIP's tokens, by the tokenizers library and files of CLIP's merges.

T = 77 tokens.
"""

from collections.abc import Sequence
import gzip
import html
import os
from pathlib import Path
import re
from types import ModuleType

import numpy as np

from foley_jax.mmaudio import rates

START, END = 49406, 49407
MERGES = 48_894  # of CLIP; the files hold more lines
# what a folder may hold, in order: open_clip's file, or transformers' pair
MERGE_FILES = ("bpe_simple_vocab_16e6.txt.gz", "merges.txt")
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # the rest is white space


def find_merges(folders: Sequence[str | os.PathLike]) -> Path | None:
    """Returns the file of CLIP's merges in one of the folders, if it is there."""
    candidates = (Path(folder) / name for folder in folders for name in MERGE_FILES)
    return next((path for path in candidates if path.is_file()), None)


class Tokenizer:
    """CLIP's byte-pair encoding as MMAudio uses it.

    Args:
      merges: `bpe_simple_vocab_16e6.txt.gz` of open_clip, or `merges.txt` of a transformers folder.
    Raises:
      ImportError: tokenizers or ftfy is not installed.
      ValueError: the file does not hold CLIP's merges.
    """

    def __init__(self, merges: str | os.PathLike):
        tokenizers, self._ftfy = _libraries()
        pairs = read_pairs(Path(merges))
        alphabet = _alphabet(tokenizers)
        words = [*alphabet, *(letter + "</w>" for letter in alphabet)]
        words += ["".join(pair) for pair in pairs] + ["<start_of_text>", "<end_of_text>"]
        vocabulary = {word: number for number, word in enumerate(words)}
        model = tokenizers.models.BPE(vocabulary, pairs, end_of_word_suffix="</w>")
        self._tokenizer = tokenizers.Tokenizer(model)
        pre = tokenizers.pre_tokenizers
        self._tokenizer.pre_tokenizer = pre.Sequence(
            [
                pre.Split(tokenizers.Regex(_SPLIT), "removed", invert=True),
                pre.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns ids, int32 [B, 77]: start, tokens, end, zeros; too many tokens are cut."""
        ids_BT = np.zeros((len(texts), rates.TEXT_TOKENS), np.int32)
        for row, text in zip(ids_BT, texts):
            ids = self._tokenizer.encode(self.clean(text), add_special_tokens=False).ids
            ids = [START, *ids[: rates.TEXT_TOKENS - 2], END]
            row[: len(ids)] = ids
        return ids_BT

    def clean(self, text: str) -> str:
        """Returns the text as open_clip cleans it: mended, unescaped, spaces joined, lower case."""
        text = html.unescape(html.unescape(self._ftfy.fix_text(text)))
        return re.sub(r"\s+", " ", text.strip()).strip().lower()


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import ftfy
        import tokenizers
        import tokenizers.models
        import tokenizers.pre_tokenizers
    except ImportError as error:
        raise ImportError(
            "text for MMAudio needs tokenizers and ftfy: pip install 'foley_jax[mmaudio]'; without "
            "text nothing of it is needed"
        ) from error
    return tokenizers, ftfy


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Returns the merges of a file in order: the first line is a title, and more follow."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    lines = text.split("\n")[1:]
    pairs = [tuple(line.split()) for line in lines if line.strip()][:MERGES]
    if len(pairs) != MERGES or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{path} holds {len(pairs)} merges, expected CLIP's {MERGES}")
    return pairs


def _alphabet(tokenizers: ModuleType) -> list[str]:
    """The letters that stand for bytes, in CLIP's order: printable ones first."""
    known = set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    printable = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
    return printable + sorted(known - set(printable))
