"""Copies a prepared set into the form of TensorFlow Datasets, for those who load data with it.

    python -m data_prep.tfds_export SHARDS ~/tensorflow_datasets --name=vggsound

    import tensorflow_datasets as tfds
    source = tfds.data_source("vggsound", split="train")        # random access, for grain
    source[0]["frames"], source[0]["audio"], source[0]["labels"]

It wants `pip install 'foley_jax[prep]'`. Neither writing nor `tfds.data_source` needs TensorFlow;
`tfds.load`, which gives a tf.data.Dataset, does. Reading needs nothing of ours: the set describes
itself.

Our own records are msgpack, which tfds cannot read: it knows tf.Example alone. So this is a copy,
also in ArrayRecord files. JPEG and PCM are copied as they are, and tfds shuffles by a hash of the
clip's id. While it works it needs twice the room of SHARDS. Training here reads SHARDS directly.
"""

from collections.abc import Iterator
import json
import pathlib
import re
import sys
from typing import TYPE_CHECKING

import numpy as np

from foley_jax.data import pipeline, records
from foley_jax.media import file_arguments

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

VERSION = "1.0.0"  # of this form; raise it when the features change


def features(index: records.Index) -> "tfds.features.FeaturesDict":
    """Returns what an example holds.

    id, source, events (JSON, "" if not known): texts; labels: texts; start_s, end_s, fps: float64;
    sample_rate_hz: int32; audio: [L] int16; frames: list of [H, W, 3] uint8, if the set has
    frames; cavp: [T, D] float16, if it has features.
    """
    import tensorflow_datasets as tfds

    def text() -> tfds.features.Text:
        return tfds.features.Text()

    fields = {
        "id": text(),
        "source": text(),
        "events": text(),
        "labels": tfds.features.Sequence(text()),
        "start_s": tfds.features.Scalar(np.float64),
        "end_s": tfds.features.Scalar(np.float64),
        "fps": tfds.features.Scalar(np.float64),
        "sample_rate_hz": tfds.features.Scalar(np.int32),
        # as bytes: a list of integers takes up to 10 bytes for a sample
        "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
    }
    if index.cavp_dim:
        shape = (None, index.cavp_dim)
        fields["cavp"] = tfds.features.Tensor(shape=shape, dtype=np.float16, encoding="bytes")
    else:
        image = tfds.features.Image(shape=(index.height, index.width, 3), encoding_format="jpeg")
        fields["frames"] = tfds.features.Sequence(image)
    return tfds.features.FeaturesDict(fields)


def example(clip: records.Clip) -> dict:
    """Clip -> what `features` says."""
    fields = {
        "id": clip.id,
        "source": clip.source,
        "events": "" if clip.events is None else json.dumps(clip.events),
        "labels": clip.labels,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "fps": clip.fps,
        "sample_rate_hz": clip.sample_rate_hz,
        "audio": clip.audio,
    }
    if clip.cavp_TD is None:
        return {**fields, "frames": clip.frames}
    return {**fields, "cavp": clip.cavp_TD}


def make_builder(
    shards: pathlib.Path, data_dir: pathlib.Path, name: str
) -> "tfds.core.GeneratorBasedBuilder":
    """The tfds builder of a prepared set; `download_and_prepare` copies it.

    Args:
      shards: folder of a prepared set, or of its CAVP features.
      data_dir: where tfds looks for data sets.
      name: what the set will be called there: lower-case letters, digits and `_`.
    Raises:
      ValueError: no set there, no such name, or the name of a set that tfds brings.
    """
    import tensorflow_datasets as tfds

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name is {name!r}, wanted lower-case letters, digits and _ (tfds)")
    if name in tfds.list_builders(with_community_datasets=False):
        raise ValueError(
            f"name is {name!r}, which TensorFlow Datasets has a data set of its own for: "
            f"`tfds.data_source({name!r})` would prepare that one; choose another, as my_{name}"
        )
    index, set_name = records.read_index(shards), name

    class Clips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Clips of video with audio."""

        name = set_name
        VERSION = tfds.core.Version(VERSION)

        def _info(self) -> tfds.core.DatasetInfo:
            about = (
                f"Clips of video with audio, prepared by foley_jax, of {', '.join(index.splits)}."
            )
            return tfds.core.DatasetInfo(builder=self, description=about, features=features(index))

        def _split_generators(self, dl_manager) -> dict:
            del dl_manager  # nothing is downloaded
            return {split: self._generate_examples(split) for split in index.splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
            source = pipeline.open_source(shards, split)
            for position in range(len(source)):
                clip = source[position]
                yield clip.id, example(clip)

    return Clips(data_dir=str(data_dir), file_format="array_record")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = file_arguments.Parser(
        prog="python -m data_prep.tfds_export",
        description=__doc__,
    )
    parser.add_argument("shards", type=pathlib.Path, help="folder of a prepared set")
    parser.add_argument("data_dir", type=pathlib.Path, help="folder of TensorFlow Datasets")
    parser.add_argument("--name", required=True, help="what the set will be called")
    args = parser.parse_args(argv)
    try:
        builder = make_builder(args.shards, args.data_dir.expanduser(), args.name)
        if pathlib.Path(builder.data_dir).exists():
            raise ValueError(f"{builder.data_dir} is there already; delete it, or choose a name")
        builder.download_and_prepare()
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}: pip install 'foley_jax[prep]'")
    except ValueError as error:
        sys.exit(f"error: {error}")
    counts = [f"{info.num_examples} {split}" for split, info in builder.info.splits.items()]
    print(f"{', '.join(counts)} clips in {builder.data_dir}")


if __name__ == "__main__":
    main()
