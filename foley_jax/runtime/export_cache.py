"""Traced programs are kept on disk: a command that runs again does not trace its networks again.

`compile_cache` keeps what XLA makes of a program, but to find it there JAX has to trace and lower
the program first, which takes longer than reading what was compiled. Here the lowered program is
kept (`jax.export`, StableHLO), under a name made of all that it depends on: this package's source,
versions, JAX's options, devices, the networks' configs, what is fixed in the program, and the
shapes of its arguments. Programs of one device only.
"""

from collections.abc import Callable, Sequence
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import sys
import tempfile
import time
from typing import Any

import jax
from jax import export

SWITCH = "FOLEY_JAX_KEEP_TRACES"  # environment variable; "0" keeps none
KEPT_DAYS = 30  # behind its last use
_SUFFIX = ".stablehlo"
_DIGEST = hashlib.sha256
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")
# options that say where things are kept and what is logged, not what is computed
_NO_MATTER = ("cache", "log", "dump", "profil", "pprint", "trace")
_on: dict[str, pathlib.Path] = {}  # "folder", once it is turned on


def turn_on(folder: pathlib.Path) -> None:
    """Keeps traces in a folder that exists, from now on; those not used for long are removed."""
    if os.environ.get(SWITCH) == "0":
        return
    oldest = time.time() - KEPT_DAYS * 86400
    for entry in folder.iterdir():
        try:
            if entry.stat().st_mtime < oldest:
                entry.unlink()
        except FileNotFoundError:
            pass  # another process removed it
    _on["folder"] = folder


def turn_off() -> None:
    """Every program is traced again, from now on."""
    _on.clear()


class Program:
    """`jax.jit(fn)` that is looked for on disk before it is traced."""

    def __init__(self, fn: Callable, name: str):
        """Args:
        fn: a function of pytrees of arrays, by position.
        name: everything that it depends on besides its arguments' shapes and what all programs
          of this process share.
        """
        self._fn, self._name = fn, name
        self._jitted = jax.jit(fn)
        self._programs: dict[Any, Callable] = {}

    def __call__(self, *args: Any) -> Any:
        folder = _on.get("folder")
        if folder is None or jax.process_count() > 1:
            return self._jitted(*args)
        leaves, tree = jax.tree.flatten(args)
        kind = (tree, tuple(jax.typeof(leaf) for leaf in leaves))
        if kind not in self._programs:
            self._programs[kind] = self._found(folder, leaves, kind)
        return self._programs[kind](leaves)

    def _found(self, folder: pathlib.Path, leaves: list, kind: tuple) -> Callable:
        """The program for arguments of this kind, from a flat list of them."""
        tree, types = kind
        flat = jax.jit(lambda leaves: self._fn(*jax.tree.unflatten(tree, leaves)))
        about = [*_surroundings(), self._name, str(tree), *map(str, types)]
        file = folder / f"{_DIGEST(chr(10).join(about).encode()).hexdigest()}{_SUFFIX}"
        try:
            exported = _read(file) or _write(file, flat, leaves)
        except (OSError, TypeError, ValueError, NotImplementedError, ImportError) as error:
            first = str(error).partition("\n")[0]
            print(f"warning: a traced program is not kept: {first}", file=sys.stderr)
            return flat
        return jax.jit(exported.call)


def _read(file: pathlib.Path) -> export.Exported | None:
    """Contents of a file; None if there is none, or a damaged one."""
    try:
        content = file.read_bytes()
        os.utime(file)
    except OSError:
        return None
    size = _DIGEST().digest_size
    if _DIGEST(content[size:]).digest() != content[:size]:
        return None
    return export.deserialize(bytearray(content[size:]))


def _write(file: pathlib.Path, program: Callable, leaves: Sequence) -> export.Exported:
    """Traces a program and puts it into a file."""
    # only the versions that wrote it will read it: custom calls need no promise of stability
    any_call = export.DisabledSafetyCheck.custom_call("ALL")
    exported = export.export(program, disabled_checks=[any_call])(leaves)
    content = bytes(exported.serialize())
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
        try:
            temporary.write(_DIGEST(content).digest() + content)
            temporary.flush()
            os.replace(temporary.name, file)
        except OSError:  # a full disk
            os.unlink(temporary.name)
            raise
    return exported


def _surroundings() -> tuple[str, ...]:
    """Returns what all programs of this process depend on, options of this moment among it."""
    values = jax.config.values
    options = sorted(name for name in values if not any(word in name for word in _NO_MATTER))
    device = jax.devices()[0]
    return (
        *_code(),
        *(f"{name}={getattr(jax.config, name, values[name])!r}" for name in options),
        f"{jax.device_count()} x {device.platform} {device.device_kind}",
    )


@functools.cache
def _code() -> tuple[str, ...]:
    """Digest of every file of this package's source, and versions of what it runs on."""
    root, digest = pathlib.Path(__file__).parent, _DIGEST()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return digest.hexdigest(), platform.python_version(), *versions
