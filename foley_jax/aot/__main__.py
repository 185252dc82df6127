"""Compiles a config's programs for chips that are not there, and says what they would cost.

  python -m foley_jax.aot --config=configs/ldm.py --topology=v5e:16x16
  python -m foley_jax.aot --config=configs/ldm.py --topology=v6e:4x4 \\
      --config.batch_size=512 --config.mesh.fsdp=4 --config.accumulate=2
  python -m foley_jax.aot --config=configs/ldm.py --guide=configs/alignment.py \\
      --topology=v5p:2x2x4 --step=sample
  python -m foley_jax.aot --config=configs/ldm.py --topology=h100:8
  python -m foley_jax.aot --table                      # all results so far, as Markdown

Needs no accelerator, only `pip install 'foley_jax[tpu]'` (Linux) or XLA's compiler for GPUs (the
extra gpu-aot, see foley_jax/aot/README.md), and some minutes for a big network: results are kept in
--cache, by everything that they depend on. Printed are the memory of one chip by part, FLOPs, bytes
moved in memory and between chips, and the roofline: the time of each at the chip's peak rate, the
largest of which bounds the step. A real step takes longer. Of GPUs also: which kernels are calls of
cuDNN and cuBLAS, which XLA wrote, which loops are left.
"""

from collections.abc import Sequence
import hashlib
import json
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from foley_jax.runtime import command_help

_FLAGS = flags.FlagValues()  # of this command alone: others have flags of the same names
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, with a variant after a colon: configs/cavp.py:demo",
    flag_values=_FLAGS,
)
_GUIDE = config_flags.DEFINE_config_file(
    "guide",
    None,
    "Config of an alignment classifier: sampling with double guidance",
    flag_values=_FLAGS,
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Slice: v5e:2x4, v5e:16x16, v5p:2x2x4, v6e:4x4, ...; GPUs: h100:8, h100:2x8 (two hosts), "
    "h200:1, a100-80:8, a100-40:1, l4:1, rtx4090:1; cpu:8 for made-up CPUs",
    flag_values=_FLAGS,
)
_STEP = flags.DEFINE_enum(
    "step", "train", ("train", "sample"), "Which programs to compile", flag_values=_FLAGS
)
_PER_CHIP = flags.DEFINE_integer(
    "per_chip",
    None,
    "--step=sample: windows, clips or frames of one chip (default: as sampling)",
    flag_values=_FLAGS,
)
_EFFORT = flags.DEFINE_float(
    "effort",
    None,
    "Of the compiler, -1 to 1; more takes several times as long and fuses a little better "
    "(default: -1 for TPUs, 0 for GPUs)",
    flag_values=_FLAGS,
)
_OPTIONS = flags.DEFINE_list(
    "compiler_options",
    [],
    "NAME=VALUE,... of XLA; xla_jf_enable_multi_output_fusion=false spares a pass of many minutes",
    flag_values=_FLAGS,
)
_CACHE = flags.DEFINE_string("cache", "aot", "Folder of the results", flag_values=_FLAGS)
_TABLE = flags.DEFINE_bool(
    "table", False, "Only print the results of --cache as Markdown", flag_values=_FLAGS
)
_HEAVIEST = flags.DEFINE_integer(
    "heaviest",
    0,
    "GPUs: also print so many kernels that move the most, with their place in the network",
    flag_values=_FLAGS,
)
_OURS = ("config", "topology", "step", "guide", "per_chip", "effort", "compiler_options")
_OURS += ("cache", "table", "heaviest")


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags; wrong ones are one line and exit code 2."""
    if any(arg in ("-h", "--help", "--helpfull") for arg in argv[1:]):
        print(command_help.usage(__doc__, _OURS, _FLAGS))
        sys.exit(0)
    try:
        rest = _FLAGS(list(argv))
        if len(rest) > 1:
            raise ValueError(f"unexpected argument {rest[1]!r}")
        if not _TABLE.value:
            for name in ("config", "topology"):
                if _FLAGS[name].value is None:
                    raise ValueError(f"--{name} is missing")
        for option in _OPTIONS.value:
            if "=" not in option:
                raise ValueError(f"--compiler_options has {option!r}, expected NAME=VALUE")
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())[-300:]} (see --help)", file=sys.stderr)
        sys.exit(2)
    return rest


def _key(request: dict) -> str:
    text = json.dumps(request, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _options() -> dict[str, str | bool]:
    named = {"true": True, "false": False}
    options = dict(option.split("=", 1) for option in _OPTIONS.value)
    if not _for_gpu():
        return options
    return {name: named.get(value, value) for name, value in options.items()}


def _effort() -> float:
    if _EFFORT.value is not None:
        return _EFFORT.value
    return 0.0 if _for_gpu() else -1.0


def _for_gpu() -> bool:
    from foley_jax.aot import gpu

    return gpu.is_gpu(_TOPOLOGY.value or "")


def _request() -> dict:
    """Everything that a result depends on, but for our own code."""
    import jax

    return {
        "config": _CONFIG.value.to_dict(),
        "guide": _GUIDE.value.to_dict() if _GUIDE.value and _STEP.value == "sample" else None,
        "file": _FLAGS["config"].config_filename,
        "topology": _TOPOLOGY.value,
        "step": _STEP.value,
        "per_chip": _PER_CHIP.value,
        "effort": _effort(),
        "jax": jax.__version__,
        **({"options": _options()} if _OPTIONS.value else {}),
    }


def run(argv: Sequence[str]) -> None:
    """Prints the costs of the programs that the flags ask for."""
    del argv
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_exec_time_optimization_effort", _effort())
    from foley_jax.aot import report

    cache = pathlib.Path(_CACHE.value)
    if _TABLE.value:
        print(report.markdown(report.read(cache)))
        return
    request = _request()
    file = cache / f"{_key(request)}.json"
    if file.exists():
        costs = report.load(file)
    else:
        costs = _compile()
        report.save(file, request, costs)
    for cost in costs:
        print(report.describe(cost, heaviest=_HEAVIEST.value))


def _compile() -> list:
    from foley_jax.aot import cost, programs, samplers, topology

    config = _CONFIG.value
    devices = topology.devices(_TOPOLOGY.value)
    if _STEP.value == "train":
        made = [programs.training(config, devices)]
    else:
        host = topology.devices(topology.one_host(_TOPOLOGY.value, devices))
        made = samplers.of(config, host, guide=_GUIDE.value, per_chip=_PER_CHIP.value)
    return [cost.of(program, dtype=config.dtype, options=_options()) for program in made]


if __name__ == "__main__":
    command_help.start(run, parse)
