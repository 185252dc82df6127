"""Audit `memorisation`: do generated clips lie nearer to the training set than unseen clips do?

    python -m foley_jax.evaluation.memorisation --training=videos/train --held_out=videos/test \\
        --generated=ours=out/seed0_sample0 --generated=ours=out/seed0_sample1 \\
        --weights=weights/ --out=report/

For every generated clip the nearest training clip is found, in descriptors of its audio and of
its image. A small distance alone says nothing: the same is done for held-out real clips, which
the generator never saw, and for every training clip among the others. Healthy samples are no
nearer than held-out clips (AUC 0.5, a share of 0.05 below their 5 % quantile); copies are nearer
(AUC and share near 1). Held-out clips must be of the kind of the training set: see that the
training row, each clip among the others, is near AUC 0.5 too.

An item is a file's first --seconds (default: the length of the shortest generated clip). Training
files are longer perhaps: they are searched in spans every --stride seconds. Audio is read from
NAME.wav, .flac or .mp4, image from NAME.mp4; what a folder lacks is left out by name. Without
--weights the descriptors are a coarse log-mel and tiny frames; with it also VGGish, PANNs and I3D,
as far as their files are there. An image that is an input of the generator is of course as near
as it is: for audio made for silent video look at the audio.

Held-out files that are files of the training set are named and left out. Written into --out:
metrics.json, table.md, per_sample.csv, run_card.json, neighbours.html and a contact sheet of the
closest pairs per descriptor.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
import sys
from typing import Any

import numpy as np
import tqdm

from foley_jax.evaluation import feature_store, run_card, seeds
from foley_jax.evaluation.memorisation import clip_descriptors, memorisation_report, neighbours
from foley_jax.evaluation.memorisation import nearest_clips as clips
from foley_jax.evaluation.protocols import feature_rules
from foley_jax.interop import registry
from foley_jax.media import file_arguments
from foley_jax.runtime import compile_cache

LEAST_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Settings:
    """How clips are compared.

    Attributes:
      seconds: length of an item.
      stride_s: between the starts of the spans of a training file.
      metric: of `neighbours.METRICS`.
    """

    seconds: float
    stride_s: float
    metric: neighbours.Metric = "euclidean"

    def __post_init__(self):
        if not self.seconds >= LEAST_SECONDS or not self.stride_s > 0:
            raise ValueError(
                f"clips of {self.seconds:g} s every {self.stride_s:g} s; expected at least "
                f"{LEAST_SECONDS} s, and a positive stride"
            )


def without_leaks(
    held_out: clips.Collection, training: clips.Collection
) -> tuple[clips.Collection, dict[str, str]]:
    """Held-out items of which no file is a file of the training set.

    Returns:
      What is left, and name of a leaked item -> name of the training item with the same content.
    Raises:
      ValueError: nothing is left.
    """
    known = {run_card.content_hash(path): name for name, path in training.files()}
    leaked = {
        name: known[content]
        for name, path in held_out.files()
        if (content := run_card.content_hash(path)) in known
    }
    left = held_out.without(leaked)
    if not left.names:
        raise ValueError(
            f"all {len(leaked)} held-out items are files of the training set; give real clips "
            "that the generator never saw"
        )
    return left, leaked


def shortest_s(systems: Mapping[str, Sequence[clips.Collection]]) -> float:
    """Length in seconds, down to a hundredth, of the shortest generated file that can be read.

    Raises:
      ValueError: none can be.
    """
    lengths_s = [
        length_s
        for runs in systems.values()
        for run in runs
        for paths in run.media.values()
        for length_s in clips.lengths_s(paths)[0].values()
    ]
    if not lengths_s:
        raise ValueError("no generated file can be read")
    return np.floor(min(lengths_s) * 100 + 1e-6) / 100


def audit(
    training: clips.Collection,
    held_out: clips.Collection,
    systems: Mapping[str, Sequence[clips.Collection]],
    settings: Settings,
    descriptors: Sequence[clip_descriptors.Descriptor],
    store: feature_store.FeatureStore,
) -> tuple[list[clips.Compared], dict[str, str]]:
    """Compares all sets with the training set by every descriptor.

    Args:
      training, held_out: real clips; leaks are the caller's (`without_leaks`).
      systems: name -> a collection per seed.
    Returns:
      What was found, and descriptor (or "descriptor, system") -> why it was left out.
    Raises:
      ValueError: nothing can be compared.
    """
    found, skipped = [], {}
    for descriptor in tqdm.tqdm(descriptors, desc="descriptors", leave=False):
        try:
            compared = clips.Compared.of(training, held_out, descriptor, settings, store)
        except clips.NothingToCompare as error:
            skipped[descriptor.name] = f"skipped: {error}"
            continue
        for name, runs in systems.items():
            try:
                compared.add(name, runs, settings.seconds, store)
            except clips.NothingToCompare as error:
                skipped[f"{descriptor.name}, {name}"] = f"skipped: {error}"
        found.append(compared)
    for name in systems:
        if not any(name in compared.systems for compared in found):
            reasons = "; ".join(f"{what}: {why}" for what, why in skipped.items())
            raise ValueError(f"nothing of {name} can be compared: {reasons}")
    return found, skipped


def run(args: argparse.Namespace) -> None:
    """The audit of a command line's folders, and its report."""
    training = clips.Collection.of("training", args.training, [args.out])
    held_out = clips.Collection.of(clips.HELD_OUT, args.held_out, [args.out])
    folders, checkpoints = (
        seeds.parse(items, "generated") for items in (args.generated, args.checkpoint)
    )
    if strangers := sorted(set(checkpoints) - set(folders)):
        raise ValueError(f"--checkpoint names {strangers}, --generated {sorted(folders)}")
    seeds.refuse(folders, (clips.TRAINING, clips.HELD_OUT))
    systems = {
        name: [clips.Collection.of(name, folder, [args.out]) for folder in runs]
        for name, runs in folders.items()
    }
    searched = [args.training, args.held_out, *(f for runs in folders.values() for f in runs)]
    if remark := run_card.passed_over(searched, [args.out]):
        print(remark, file=sys.stderr)
    seconds = shortest_s(systems) if args.seconds is None else args.seconds
    stride_s = seconds / 2 if args.stride is None else args.stride
    settings = Settings(seconds, stride_s, args.metric)
    cache = args.out / "cache" if args.cache is None else args.cache
    store = feature_store.FeatureStore(cache)
    networks = (
        None
        if args.weights is None
        else feature_rules.Networks(args.weights, registry.load_torch, store)
    )
    descriptors, skipped = clip_descriptors.all_of(seconds, networks)
    held_out, leaked = without_leaks(held_out, training)
    found, more_skipped = audit(training, held_out, systems, settings, descriptors, store)
    facts: dict[str, Any] = {
        **dataclasses.asdict(settings),
        "descriptors": {
            compared.descriptor.name: compared.descriptor.settings for compared in found
        },
        "near_quantile": neighbours.NEAR_QUANTILE,
        "held_out_left_out": leaked,
    }
    weights = {name: paths[-1] for name, paths in checkpoints.items()}
    memorisation_report.write(args.out, found, {**skipped, **more_skipped}, leaked, facts, weights)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    p = file_arguments.Parser(
        prog="python -m foley_jax.evaluation.memorisation",
        description=__doc__,
        epilog=compile_cache.HELP,
    )
    p.add_argument("--training", type=Path, required=True, help="what the generator was trained on")
    p.add_argument("--held_out", type=Path, required=True, help="real clips it never saw")
    p.add_argument(
        "--generated", action="append", required=True, metavar="[NAME=]DIR", help="its samples"
    )
    p.add_argument(
        "--checkpoint", action="append", default=[], metavar="[NAME=]PATH", help="to be hashed"
    )
    p.add_argument("--weights", type=Path, help="folder of metric networks' published files")
    p.add_argument("--out", type=Path, required=True, help="where the report goes")
    p.add_argument("--cache", type=Path, help="where features are kept; default OUT/cache")
    p.add_argument("--seconds", type=float, help="of a clip; default the shortest generated one's")
    p.add_argument("--stride", type=float, help="between spans of training files; default half")
    p.add_argument("--metric", choices=neighbours.METRICS, default=neighbours.METRICS[0])
    args = p.parse_args(argv)
    compile_cache.turn_on()
    try:
        run(args)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
