"""The captions that av-benchmark's CLAP scores compare audio clips with.

A CSV file with the columns `name` (of the audio clip, without suffix) and `caption`, as that tool's
extract_text.py reads it; further columns do not count.
T tokens.
Source: av-benchmark extract_text.py.
"""

from collections.abc import Callable, Iterable, Mapping
import csv
import dataclasses
import functools
from pathlib import Path

import numpy as np

from foley_jax.evaluation.networks import captions
from foley_jax.evaluation.protocols import av_benchmark_cache

COLUMNS = ("name", "caption")
# cache file -> network of `networks.registry` that makes it of captions
CAPTIONED: Mapping[str, str] = {
    "clap_laion_text": "laion_clap_text",
    "clap_ms_text": "ms_clap_text",
}
Tower = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def read_captions(path: Path) -> dict[str, str]:
    """Caption by name of the audio clip; of a name that stands there twice the last one counts.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a CSV file in UTF-8 with both columns, or a line without a caption.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise ValueError(
                    f"{path} has the columns {rows.fieldnames}, expected also {missing} (a CSV "
                    "file with a header)"
                )
            found = {row["name"]: row["caption"] for row in rows}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if empty := [name for name, caption in found.items() if not caption]:
        raise ValueError(f"{path} has no caption of {empty[:3]}")
    return found


@dataclasses.dataclass(frozen=True)
class Captioned:
    """How a cache file comes out of captions.

    Attributes:
      network: of `networks.registry`.
      load: gives the text tower, when the first caption is embedded.
      vocabulary: folder of the tokeniser's files.
    """

    network: str
    load: Callable[[], Tower]
    vocabulary: Path

    @functools.cached_property
    def _tools(self) -> tuple[captions.Tokenise, Tower]:
        make, _ = captions.TOKENISERS[self.network]
        return make(self.vocabulary), self.load()

    def embed(self, texts: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
        """The items of a cache by caption, each caption embedded by itself, as in the source.

        Raises:
          ImportError: no `transformers`.
          FileNotFoundError, fill.ConversionError: files that are missing, or others.
        """
        tokenise, tower = self._tools
        found = {}
        for text in dict.fromkeys(texts):
            embedding = np.asarray(tower(tokenise(text)[None])["embedding"])[0]
            found[text] = {av_benchmark_cache.FEATURES: embedding}
        return found
