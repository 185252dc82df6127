"""Compiled programs are kept on disk: a command that runs again does not compile again.

Front doors turn this on when they start; a library that only imports ours is left as it is. JAX's
own environment variables, or `jax.config`, have the last word (`HELP` names them). Machines may
share one folder: programs lie in one of its folders for every jaxlib and kind of CPU.
"""

import glob
import hashlib
import os
import pathlib
import platform
import re
import sys
import warnings
import zlib

import jax
import jaxlib

from foley_jax.runtime import export_cache

HELP = """Compiled programs are kept in JAX_COMPILATION_CACHE_DIR (default
~/.cache/foley_jax/programs); JAX_ENABLE_COMPILATION_CACHE=0 keeps none. What JAX traced for
sampling is kept in its folder traces; FOLEY_JAX_KEEP_TRACES=0 keeps none of that."""
TRACES = "traces"  # folder for `export_cache`, inside
CHECKED = ".checked"  # its time is that of the last look for torn entries
_ENTRIES = "*-cache"  # names that JAX gives them
_USUAL_LEAST_S = 1.0  # JAX's own bound of what is worth keeping
_REJECTED = re.compile(r"Error reading persistent compilation cache entry for '([^']+)': (.*)")
_CPU_LINES = ("flags", "features", "isa")  # of /proc/cpuinfo: x86, Arm, RISC-V


def turn_on() -> pathlib.Path | None:
    """Keeps compiled programs, from now on.

    In the folder that JAX was told, else in foley_jax/programs of the user's cache folder
    ($XDG_CACHE_HOME or ~/.cache); there in a folder for this jaxlib and the features of this CPU,
    as a program made for another CPU may end the process (JAX itself names programs by platform
    and device). What JAX rejects all the same is compiled again and replaced. Every program is
    kept, unless JAX was told a least compile time. To be called behind
    `distributed.join_processes`, and before anything is compiled. The processes of one run on CPUs
    share none: where some found a program and others did not, they have waited for each other for
    ever.

    Returns:
      The folder; None where nothing is kept: that is switched off, several processes run on CPUs,
      or the folder cannot be written (a warning says so).
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    if _several_on_cpus():
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    told = jax.config.jax_compilation_cache_dir
    if told and "://" in told:
        return None  # a store that JAX reaches by itself
    folder = _here(pathlib.Path(told) if told else _usual_folder())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies there is run
        (folder / TRACES).mkdir(mode=0o700, exist_ok=True)
        _remove_torn(folder)
    except OSError as error:
        print(f"warning: compiled programs are not kept: {error}", file=sys.stderr)
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if jax.config.jax_persistent_cache_min_compile_time_secs == _USUAL_LEAST_S:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    export_cache.turn_on(folder / TRACES)
    _replace_rejected(folder)
    return folder


def _several_on_cpus() -> bool:
    # asked first: a process that joined no others must not touch a device yet
    if not jax.distributed.is_initialized():
        return False
    return jax.process_count() > 1 and jax.default_backend() == "cpu"


def _usual_folder() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "foley_jax" / "programs"


def _here(folder: pathlib.Path) -> pathlib.Path:
    """The folder inside, for programs of this jaxlib and CPU; itself if it is one."""
    name = f"jaxlib-{jaxlib.__version__}-{platform.machine()}-{_cpu()}"
    return folder if folder.name == name else folder / name


def _cpu(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """A digest of the CPU's features, where the system tells them; else of its name."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    told = {key.strip().lower(): value for key, _, value in (x.partition(":") for x in lines)}
    features = [" ".join(sorted(told[key].split())) for key in _CPU_LINES if key in told]
    about = " ".join(features) or platform.processor()
    return hashlib.sha256(about.encode()).hexdigest()[:8]


def _replace_rejected(folder: pathlib.Path) -> None:
    """Entries that JAX cannot use are removed, so that what it compiles instead is kept.

    One line says so, once: JAX's warning comes with every program of every process.
    """
    shown, told = warnings.showwarning, []

    def show(message, *args, **kwargs):
        found = _REJECTED.match(str(message))
        if not found:
            shown(message, *args, **kwargs)
            return
        for entry in folder.glob(f"{glob.escape(found[1])}-*cache"):
            entry.unlink(missing_ok=True)
        if not told:
            told.append(found[1])
            why = found[2].partition("\n")[0][:160]
            print(
                f"warning: a kept program cannot be used and is compiled again ({why}); "
                "so will others of its kind be",
                file=sys.stderr,
            )

    warnings.showwarning = show


def _remove_torn(folder: pathlib.Path) -> None:
    """Removes entries that a process did not live to finish.

    JAX warns of such a one, compiles, and leaves it where it is, so that the program would be
    compiled again by every later process. Looked at are those younger than the last look.
    """
    stamp = folder / CHECKED
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    stamp.touch()  # before the look; raises where nothing can be written
    for entry in folder.glob(_ENTRIES):
        try:
            if entry.stat().st_mtime >= since and not _whole(entry.read_bytes()):
                entry.unlink()
        except FileNotFoundError:
            pass  # another process removed it


def _whole(entry: bytes) -> bool:
    """Whether nothing is missing; of zstd's, which has no checksum here, always true."""
    if entry[:1] != b"\x78":  # zlib's first byte
        return bool(entry)
    try:
        zlib.decompress(entry)
    except zlib.error:
        return False
    return True
