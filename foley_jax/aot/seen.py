"""Memory of a training step as it was predicted, as the compiler says here, and as it was seen.

  python -m foley_jax.aot --config=configs/ldm.py --config.batch_size=64 \\
      --topology=h100:1 --cache=DIR
  python -m foley_jax.aot.seen --config=configs/ldm.py --config.batch_size=64 \\
      --predicted=DIR --out=memory.json

The first needs no device and may run beside; the second runs the step once on the device that is
there, on zeros.
"""

from collections.abc import Sequence
import json
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from foley_jax.runtime import command_help

_FLAGS = flags.FlagValues()
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file", flag_values=_FLAGS)
_PREDICTED = flags.DEFINE_string(
    "predicted", "", "Folder of results of foley_jax.aot", flag_values=_FLAGS
)
_PLATFORM = flags.DEFINE_string(
    "platform", "", "cpu, cuda, tpu (default: what is there)", flag_values=_FLAGS
)
_OUT = flags.DEFINE_string("out", "memory.json", "JSON to write", flag_values=_FLAGS)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags; wrong ones are one line and exit code 2."""
    if any(arg in ("-h", "--help", "--helpfull") for arg in argv[1:]):
        print(command_help.usage(__doc__, ("config", "predicted", "platform", "out"), _FLAGS))
        sys.exit(0)
    try:
        rest = _FLAGS(list(argv))
        if _CONFIG.value is None:
            raise ValueError("--config is missing")
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())[-300:]} (see --help)", file=sys.stderr)
        sys.exit(2)
    return rest


def peak_bytes(program: Any) -> tuple[float, int | None]:
    """Runs a program once on zeros.

    Args:
      program: `programs.Program` on devices that are there.
    Returns:
      Bytes that the compiler says a device takes, and the most that were in use there; None where
      the device keeps no count.
    """
    import jax
    import jax.numpy as jnp

    from foley_jax.aot import cost

    def zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.device_put(jax.random.key(0), x.sharding)
        return jax.device_put(jnp.zeros(x.shape, x.dtype), x.sharding)

    args = jax.tree.map(zeros, program.args)
    with program.running():
        compiled = program.jitted.lower(*program.args).compile()
        jax.block_until_ready(compiled(*args))
    stats = program.mesh.devices.flat[0].memory_stats()
    return cost.compiled_bytes(compiled), (stats or {}).get("peak_bytes_in_use")


def predicted(folder: str, config: dict[str, Any], kind: str) -> float | None:
    """Bytes that `foley_jax.aot` predicted for this config on one such device; None if it did not.

    Args:
      folder: of its results.
      config: as a dict.
      kind: of the device, as JAX names it.
    """
    from foley_jax.aot import report
    from foley_jax.runtime import chips

    chip = chips.find(kind)
    if chip is None or not folder or not list(pathlib.Path(folder).glob("*.json")):
        return None
    asked = json.loads(json.dumps(config, default=str))
    for request, made in report.read(pathlib.Path(folder)):
        if request["config"] == asked and (made.chip, made.num_chips) == (chip.name, 1):
            return made.peak_bytes
    return None


def run(argv: Sequence[str]) -> None:
    """Runs the config's step once and writes what it took."""
    del argv
    import jax

    if _PLATFORM.value:
        jax.config.update("jax_platforms", _PLATFORM.value)
    from foley_jax.aot import programs

    config, device = _CONFIG.value, jax.devices()[0]
    says, seen = peak_bytes(programs.training(config, [device]))
    made = {
        "config": _FLAGS["config"].config_filename,
        "batch": config.batch_size,
        "device": device.device_kind,
        "predicted": predicted(_PREDICTED.value, config.to_dict(), device.device_kind),
        "compiler": says,
        "seen": seen,
    }
    pathlib.Path(_OUT.value).write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made))


if __name__ == "__main__":
    command_help.start(run, parse)
