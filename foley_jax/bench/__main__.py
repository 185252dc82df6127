"""Times training, sampling and their parts on this machine, beside what PyTorch would take.

  python -m foley_jax.bench unet_forward                    # a minute or two on a CPU
  python -m foley_jax.bench unet_forward vae_decode --size=paper --threads=2
  python -m foley_jax.bench ldm_sample --size=paper --dtype=bfloat16        # on a GPU
  python -m foley_jax.bench all --size=tiny --repeats=3     # everything, to see that it works
  python -m foley_jax.bench --table                         # all results so far, as Markdown

Ours and the peer have the same weights, and their outputs are compared first; a peer that computes
something else is not timed. Then they are called by turns. What counts is the ratio of neighbouring
calls: other work on the machine disturbs both. Peers need `pip install 'foley_jax[bench]'`, and
without it, or with --no_peer, only ours is timed. Peers run eager, channels last, with torch's
fused attention and in inference mode; on a GPU compiled by torch.compile as well.
"""

from collections.abc import Sequence
import importlib.metadata
import os
import pathlib
import sys

from absl import flags

from foley_jax.runtime import command_help

_SIZES = ("tiny", "small", "paper")
_FLAGS = flags.FlagValues()  # of this command alone: others have flags of the same names
_SIZE = flags.DEFINE_enum(
    "size",
    "small",
    _SIZES,
    "tiny: seconds; small: what a CPU does in a minute or two; paper",
    flag_values=_FLAGS,
)
_THREADS = flags.DEFINE_integer(
    "threads",
    None,
    "Of a CPU, for both (default: all cores that the process may use)",
    flag_values=_FLAGS,
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 10, "Calls of each that count", lower_bound=1, flag_values=_FLAGS
)
_OUT = flags.DEFINE_string(
    "out", "bench", "Folder of the results: JSON, and table.md", flag_values=_FLAGS
)
_TABLE = flags.DEFINE_bool(
    "table", False, "Only print the results of --out as Markdown", flag_values=_FLAGS
)
_NO_PEER = flags.DEFINE_bool("no_peer", False, "Time ours alone", flag_values=_FLAGS)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ("float32", "bfloat16"),
    "Of our computation; PyTorch's half precision is float16 on GPUs",
    flag_values=_FLAGS,
)
_ONLY = flags.DEFINE_string(
    "only", "", "Only cases that have this in their names: CFG, batch 8", flag_values=_FLAGS
)
_OURS = ("size", "threads", "repeats", "dtype", "no_peer", "only", "out", "table")


def _suites() -> tuple[str, ...]:
    from foley_jax.bench import suites

    return suites.SUITES


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags; wrong ones are one line and exit code 2."""
    if any(arg in ("-h", "--help", "--helpfull") for arg in argv[1:]):
        print(command_help.usage(__doc__, _OURS, _FLAGS))
        print(f"suites: {', '.join(_suites())}, or all")
        sys.exit(0)
    try:
        rest = _FLAGS(list(argv))
        known = _suites()
        for name in rest[1:]:
            if name not in (*known, "all"):
                raise ValueError(f"no suite {name!r}; there are {', '.join(known)}, and all")
        if len(rest) == 1 and not _TABLE.value:
            raise ValueError(f"name a suite: {', '.join(known)}, or all")
        if _THREADS.value is not None and not 1 <= _THREADS.value <= _cores():
            raise ValueError(f"--threads={_THREADS.value}: the process may use {_cores()} cores")
    except (flags.Error, ValueError) as error:
        print(f"error: {' '.join(str(error).split())[-300:]} (see --help)", file=sys.stderr)
        sys.exit(2)
    return rest


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _take_threads() -> int:
    """XLA makes as many threads as the process may use cores, so it is held to these."""
    count = _THREADS.value or _cores()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    elif count != _cores():
        raise ValueError("--threads needs an operating system with sched_setaffinity (Linux)")
    return count


def run(argv: Sequence[str]) -> None:
    """Measures the suites that the command line names, one case after another."""
    from foley_jax.bench import report

    out = pathlib.Path(_OUT.value)
    if _TABLE.value:
        print(report.markdown(report.read(out)))
        return
    threads = _take_threads()
    # beside a peer on the same GPU; programs are compiled anew, for their time to be known
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    place = _place(threads)
    if place.no_peers:
        print(place.no_peers)
    names = [name for name in _suites() if name in argv[1:] or "all" in argv[1:]]
    failed = [name for name in names if not _suite(name, place, out)]
    print(f"results and table.md are in {out}")
    if failed:
        raise ValueError(f"not everything was measured: {', '.join(failed)}")


def _place(threads: int):
    import jax

    from foley_jax.bench import peak, report
    from foley_jax.bench.peers import torch_side

    no_peers = "--no_peer: no peers" if _NO_PEER.value else torch_side.absent()
    versions = {"jax": jax.__version__}
    if not no_peers:
        torch_side.prepare(threads)
        for name in ("torch", "diffusers"):
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
    backend = jax.default_backend()
    return report.Place(
        backend=backend,
        device=report.device_name(),
        dtype=_DTYPE.value,
        threads=threads if backend == "cpu" else 0,
        peak_flops=peak.matmul_flops(_DTYPE.value, quick=_SIZE.value == "tiny"),
        versions=versions,
        no_peers=no_peers,
    )


def _suite(name: str, place, out: pathlib.Path) -> bool:
    """Measures one suite and saves it case by case; False if one could not be measured.

    A case that is refused, or for which there is too little memory, keeps no other from its turn.
    """
    from foley_jax.bench import case, measure, report, suites

    ask = case.Ask(_SIZE.value, _DTYPE.value, peers=not place.no_peers)
    results, good = [], True
    for one in suites.cases(name, ask):
        if _ONLY.value not in one.name:
            continue
        try:
            results.append(measure.run(one, repeats=_REPEATS.value))
        except (ValueError, RuntimeError, MemoryError) as error:
            where = "" if isinstance(error, measure.Different) else f"{name}, {one.name}: "
            print(f"error: {where}{error}", file=sys.stderr)
            good = False
            continue
        print(report.describe(place, results[-1]), flush=True)
        report.save(out, place, results)
        (out / "table.md").write_text(report.markdown(report.read(out)) + "\n")
    return good


if __name__ == "__main__":
    command_help.start(run, parse)
