"""Official PyTorch checkpoints -> our modules, strict in both directions.

    from foley_jax import convert
    cavp = convert.load_torch("diff_foley/cavp", "cavp_epoch66.ckpt")
    kind = convert.recognise("some.ckpt")

    python -m foley_jax.convert diff_foley/cavp cavp_epoch66.ckpt converted/cavp
    python -m foley_jax.convert auto hub:OWNER/NAME/FILE.ckpt converted/model
    python -m foley_jax.convert --list
    python -m foley_jax.convert export runs/ldm travels/ldm --dtype=bfloat16
    python -m foley_jax.convert export runs/ldm travels/ldm --push=OWNER/NAME
    python -m foley_jax.convert to_torch runs/ldm ldm.ckpt

Every key of the checkpoint is used or on its kind's written ignore list, every parameter is
filled, every shape agrees; otherwise one error names all offenders. Files are read without
running code (`foley_jax/interop/torch_reader.py`). What became of every key is printed and written
to conversion.json beside the converted weights, and so is what was changed on the way: names of
wrappers stripped (torch.compile, DDP, FSDP, ...), half precision, shapes of single numbers.

Where a file holds the last weights and their averages (EMA), the last ones are taken; --ema takes
the averages. `export` goes the other way: a run's model, averaged where the run has averages, as
config.json and weights.safetensors, which sampling and grafts read like a run, with their
SHA256SUMS, a README.md to be filled in, and the CAVP that the model needs. --push uploads that.
`to_torch` writes the same weights under the official names, for the official code.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from flax import nnx
import jax
import numpy as np

from foley_jax.inference import official
from foley_jax.interop import hub, registry, torch_writer
from foley_jax.interop import report as conversion_report
from foley_jax.media import file_arguments

# the Python API
kinds, recognise = registry.kinds, registry.recognise
load_torch, convert = registry.load_torch, registry.convert
from_state_dict = registry.from_state_dict
run_config, save, to_torch = official.run_config, official.save, official.to_torch

EXPORT, TO_TORCH = "export", "to_torch"  # on the command line: SRC is a run of ours
AUTO = "auto"  # on the command line: the kind is read off the file's keys


def parser() -> argparse.ArgumentParser:
    p = file_arguments.Parser(
        prog="python -m foley_jax.convert",
        description="Turns an official PyTorch checkpoint into a folder this package reads.",
        epilog="""examples:
  python -m foley_jax.convert diff_foley/cavp cavp_epoch66.ckpt converted/cavp
  python -m foley_jax.convert stable_diffusion/v1 sd-v1-4-full-ema.ckpt runs/sd --ema
  python -m foley_jax.convert stable_diffusion/v1 hub:CompVis/stable-diffusion-v1-4 runs/sd
  python -m foley_jax.convert export runs/ldm travels/ldm --dtype=bfloat16
  python -m foley_jax.convert export runs/ldm travels/ldm --license=mit --push=OWNER/NAME
  python -m foley_jax.convert to_torch runs/ldm ldm.ckpt
  python -m foley_jax.convert --list""",
    )
    p.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help=f"what the file is (see --list), or {AUTO}, {EXPORT}, {TO_TORCH}",
    )
    p.add_argument(
        "source",
        nargs="?",
        metavar="SRC",
        help="checkpoint file, diffusers folder, or hub:OWNER/NAME[/FILE]",
    )
    p.add_argument(
        "folder",
        nargs="?",
        metavar="DST",
        help=f"new folder for the model; {TO_TORCH}: new file, .ckpt, .pt, .pth or .safetensors",
    )
    p.add_argument(
        "--ema",
        action="store_true",
        help="take the weights averaged over training where the source has both (default: the "
        "last ones, as the official code)",
    )
    p.add_argument("--list", action="store_true", help="print the known kinds and stop")
    _add_export(p)
    return p


def _add_export(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group(EXPORT)
    group.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "int8"),
        help="store the weights in half or (int8) a quarter of the size (default: as they are)",
    )
    group.add_argument(
        "--share",
        metavar="DIR",
        help="leave weights that this exported model holds, too, to it: both then travel together",
    )
    group.add_argument(
        "--figures",
        metavar="FILE",
        help="JSON of figures for the card: metrics.json of an evaluation, or "
        '{"protocol": "how", "metric": number} (default: the run\'s own newest evaluation)',
    )
    group.add_argument(
        "--license", metavar="NAME", help="of the weights, for the card, as the hub spells it"
    )
    group.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="upload what was written to the Hugging Face hub, as a private repository",
    )
    group.add_argument("--public", action="store_true", help="make that repository public")
    p.add_argument_group(TO_TORCH).add_argument(
        "--kind",
        dest="torch_kind",
        metavar="KIND",
        help="kind of the file, or its last name: cavp, ldm, base, ... (default: the run's)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    command = parser()
    args = command.parse_args(argv)
    if args.list:
        print("\n".join(sorted(registry.kinds())))
        return 0
    if not args.folder:
        command.error("KIND, SRC and DST are needed (or --list)")
    if args.kind == TO_TORCH:
        return _to_torch(args)
    if Path(args.folder).exists() and any(Path(args.folder).iterdir()):
        print(f"error: {args.folder} is not empty; name a new folder", file=sys.stderr)
        return 1
    if args.kind == EXPORT:
        return _export(args)
    try:
        kind = registry.recognise(args.source) if args.kind == AUTO else args.kind
        module, filled = registry.convert(kind, args.source, averaged=args.ema)
        official.save(kind, module, args.folder, **registry.fields_of(kind, args.source))
        about = {"kind": kind, "source": args.source, "ema": args.ema}
        report = conversion_report.write(args.folder, filled, **about)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    print("\n".join(conversion_report.lines(filled)))
    print(
        f"{args.source} -> {args.folder}: {kind}, {count:,} parameters, every key accounted for "
        f"({report})"
    )
    return 0


def _export(args: argparse.Namespace) -> int:
    from foley_jax.inference import export

    try:
        if args.push:
            hub.check_name(args.push)
            if args.share:
                raise ValueError("a model that shares weights is not whole: --push without --share")
        done = export.write(
            args.source,
            args.folder,
            dtype=args.dtype,
            share=args.share,
            figures=args.figures,
            licence=args.license,
        )
        print(f"{args.source} -> {args.folder}: {done.size / 1e6:.2f} MB of weights")
        if done.remark:
            print(f"note: {done.remark}", file=sys.stderr)
        if args.push:
            found = export.files(args.folder)
            visible = "public" if args.public else "private"
            print(f"uploading {len(found)} files to {args.push} ({visible} if it is new):")
            print("\n".join(f"  {name}  {size:,} bytes" for name, size in found.items()))
            print(hub.push(Path(args.folder), args.push, public=args.public))
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _to_torch(args: argparse.Namespace) -> int:
    try:
        done = official.to_torch(args.source, args.folder, args.torch_kind)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{args.source} -> {args.folder}: {done.kind}, {len(done.written.state)} tensors, "
        f"{torch_writer.size(done.written):,} numbers"
    )
    for line in done.remarks:
        print(f"note: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
