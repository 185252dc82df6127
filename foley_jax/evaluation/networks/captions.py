"""Captions as the tokens that CLAP's text towers take: byte-level BPE by `transformers`.

The vocabularies are those of roberta-base and gpt2: folders with vocab.json and merges.txt (or the
whole folders as the Hugging Face hub has them). Nothing is fetched.
T tokens.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
import types
from typing import Any

import numpy as np

from foley_jax.evaluation.networks import laion_clap, ms_clap

FILES = ("vocab.json", "merges.txt")
Tokenise = Callable[[str], np.ndarray]


def _transformers() -> types.ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"captions are tokenised by `transformers` ({error}); install it, or this package "
            'with its extra: pip install "foley_jax[eval]"'
        ) from error
    return transformers


def _vocabulary(kind: str, folder: Path) -> Any:
    """A tokeniser of transformers from a folder of files, without the hub."""
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"no {' and '.join(missing)} in {folder}; put the files of "
            f"https://huggingface.co/{folder.name} there"
        )
    return getattr(_transformers(), kind).from_pretrained(str(folder), local_files_only=True)


def for_laion_clap(folder: Path) -> Tokenise:
    """RoBERTa's tokens of a caption: <s>, at most 75 tokens, </s>, padding to 77.

    Args:
      folder: with the files of roberta-base.
    Returns:
      caption -> int32 [2, 77]: ids, and 1 where there is a token.
    Raises:
      FileNotFoundError: no such files.
      ImportError: no `transformers`.
    Source: LAION-AI/CLAP src/laion_clap/hook.py `tokenizer`.
    """
    tokens = _vocabulary("RobertaTokenizerFast", folder)

    def tokenise(text: str) -> np.ndarray:
        length = {"max_length": laion_clap.MAX_TOKENS, "padding": "max_length", "truncation": True}
        found = tokens(text, **length)
        return np.asarray([found["input_ids"], found["attention_mask"]], np.int32)

    return tokenise


def for_ms_clap(folder: Path) -> Tokenise:
    """GPT-2's tokens of a caption, a space and <|endoftext|>; padding to 77, no cut.

    Args:
      folder: with the files of gpt2.
    Returns:
      caption -> int32 [2, T], T >= 77: ids, and 1 where there is a token.
    Raises:
      FileNotFoundError: no such files.
      ImportError: no `transformers`.
    Source: microsoft/CLAP msclap/CLAPWrapper.py `preprocess_text`.
    """
    tokens = _vocabulary("GPT2TokenizerFast", folder)

    def tokenise(text: str) -> np.ndarray:
        ids = tokens(f"{text} <|endoftext|>")["input_ids"]
        rows = np.zeros((2, max(len(ids), ms_clap.MIN_TOKENS)), np.int32)  # 0 is the padding, too
        rows[0, : len(ids)], rows[1, : len(ids)] = ids, 1
        return rows

    return tokenise


# network of `registry` -> how its captions become tokens, and the folder of its vocabulary
TOKENISERS: Mapping[str, tuple[Callable[[Path], Tokenise], str]] = {
    "laion_clap_text": (for_laion_clap, "roberta-base"),
    "ms_clap_text": (for_ms_clap, "gpt2"),
}
