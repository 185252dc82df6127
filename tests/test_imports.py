"""Who may import whom: the floors of the house, read from the source with `ast`."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
SYSTEMS = ("diff_foley", "mm_diffusion")

# room -> what it may import from our own package; "a.b" allows that module only.
# A room may always import itself.
MAY_IMPORT = {
    "foley_jax.runtime": set(),
    "foley_jax.media": set(),
    "foley_jax.diffusion": set(),
    "foley_jax.runtime.sharding": set(),
    "foley_jax.runtime.watchdog": set(),
    "foley_jax.interop.foreign_files": set(),
    "foley_jax.interop.torch_reader": {
        "foley_jax.interop.foreign_files",
        "foley_jax.interop.torch_pickle",
        "foley_jax.interop.torch_archive",
        "foley_jax.interop.weight_folders",
    },
    "foley_jax.interop.torch_pickle": set(),
    "foley_jax.interop.torch_archive": {"foley_jax.interop.torch_pickle"},
    "foley_jax.interop.torch_tensors": {
        "foley_jax.interop.torch_pickle",
        "foley_jax.interop.torch_archive",
    },
    "foley_jax.interop.weight_folders": set(),
    "foley_jax.interop.hub": set(),
    "foley_jax.inference.timing": set(),
    "foley_jax.runtime.flops": set(),
    "foley_jax.runtime.command_help": set(),
    "foley_jax.runtime.chips": set(),
    "foley_jax.runtime.compile_cache": {"foley_jax.runtime.export_cache"},
    "foley_jax.runtime.export_cache": set(),
    "foley_jax.runtime.init_keys": set(),
    "foley_jax.data": {"foley_jax.media"},
    "foley_jax.layers": {
        "foley_jax.runtime.sharding",
        "foley_jax.runtime.export_cache",
        "foley_jax.runtime.init_keys",
    },
    "foley_jax.training": {
        "foley_jax.data",
        "foley_jax.runtime",
        "foley_jax.runtime.sharding",
        "foley_jax.runtime.flops",
        "foley_jax.runtime.chips",
        "foley_jax.runtime.init_keys",
    },
    **{
        f"foley_jax.{system}": {
            "foley_jax.layers",
            "foley_jax.diffusion",
            "foley_jax.media",
            "foley_jax.data",
            "foley_jax.runtime",
            "foley_jax.runtime.sharding",
            "foley_jax.training.task",
            "foley_jax.runtime.flops",
        }
        for system in SYSTEMS
    },
    "foley_jax.evaluation": {
        "foley_jax.media",
        "foley_jax.layers",
        "foley_jax.runtime",
        "foley_jax.interop.torch_tensors",
        "foley_jax.diff_foley.models.alignment",
    },
    # looks at the programs of all stages from above; only its own front door imports it
    "foley_jax.aot": {
        *(f"foley_jax.{system}" for system in SYSTEMS),
        "foley_jax.layers",
        "foley_jax.media",
        "foley_jax.data",
        "foley_jax.training",
        "foley_jax.runtime.sharding",
        "foley_jax.runtime.flops",
        "foley_jax.runtime.chips",
    },
    # times everything beside PyTorch; nothing imports it
    "foley_jax.bench": {
        *(f"foley_jax.{system}" for system in SYSTEMS),
        "foley_jax.layers",
        "foley_jax.diffusion",
        "foley_jax.media",
        "foley_jax.data",
        "foley_jax.training",
        "foley_jax.runtime.sharding",
        "foley_jax.runtime.flops",
        "foley_jax.runtime.command_help",
        "configs",
    },
    "data_prep": {"foley_jax.media", "foley_jax.data", "foley_jax.runtime"},
    "configs": set(),
}
# rooms that nobody else enters, front doors included
CLOSED = ("foley_jax.aot", "foley_jax.bench")
# front doors may import anything below; nothing imports them
FRONT_DOORS = (
    "foley_jax.main",
    "foley_jax.sample",
    "foley_jax.inference.jobs",
    "foley_jax.inference.load",
    "foley_jax.inference.sounding_video",
    "foley_jax.generate",
    "foley_jax.inference.flags",
    "foley_jax.convert",
    "foley_jax.aot.__main__",
    "foley_jax.bench.__main__",
    "foley_jax.evaluation.__main__",
    "foley_jax.evaluation.memorisation.__main__",
    "data_prep.features",
)
# the front door of sampling has several files, and loads official weights through the converter
FRONT_DOORS_MAY_USE = {
    "foley_jax.main": {"foley_jax.evaluation.__main__"},
    "foley_jax.generate": {
        "foley_jax.sample",
        "foley_jax.inference.jobs",
        "foley_jax.inference.load",
        "foley_jax.inference.flags",
    },
    "foley_jax.sample": {
        "foley_jax.inference.jobs",
        "foley_jax.inference.load",
        "foley_jax.inference.flags",
        "foley_jax.inference.sounding_video",
    },
    "foley_jax.inference.sounding_video": {"foley_jax.inference.jobs"},
    "foley_jax.inference.load": {"foley_jax.convert"},
    "foley_jax.evaluation.memorisation.__main__": {"foley_jax.convert"},
    "foley_jax.evaluation.__main__": {
        "foley_jax.convert",
        "foley_jax.generate",
        "foley_jax.inference.load",
        "foley_jax.sample",
    },
}

# outside package -> the only modules that may import it
ONLY_IN = {
    "orbax": ("foley_jax.training.checkpointing.checkpoint",),
    "grain": ("foley_jax.data.pipeline",),
    "av": ("foley_jax.media",),
    "torch": ("foley_jax.bench.peers",),
    "diffusers": ("foley_jax.bench.peers",),
    "huggingface_hub": ("foley_jax.interop.hub",),
    "librosa": ("foley_jax.media",),
    "tensorboardX": ("foley_jax.training.logging.metrics_log",),
    "tensorflow_datasets": ("data_prep.tfds_export",),
}
JAX_ONLY = "foley_jax.diffusion"


def files():
    """Module name -> path of everything that is installed."""
    found = {}
    for package in ("foley_jax", "data_prep", "configs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


FILES = files()


def modules_of(name, level, names, importer, path):
    """Full names that one import statement may mean."""
    if level:
        package = importer.split(".") if path.name == "__init__.py" else importer.split(".")[:-1]
        base = package[: len(package) - level + 1]
        name = ".".join([*base, *([name] if name else [])])
    whole = [f"{name}.{n}" for n in names]
    return [module for module in whole if module in FILES] or [name]


def imports(module):
    """(imported module, line) of every import in a file, wherever it stands."""
    path = FILES[module]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            for name in modules_of(node.module, node.level, names, module, path):
                yield name, node.lineno


def inside(module, room):
    return module == room or module.startswith(room + ".")


def ours(module):
    return module.split(".")[0] in ("foley_jax", "data_prep", "configs")


def room_of(module):
    return next((room for room in MAY_IMPORT if inside(module, room)), None)


def complaints(module):
    """What is wrong with a file's imports."""
    room = room_of(module)
    for imported, line in imports(module):
        where = f"{FILES[module].relative_to(ROOT)}:{line} imports {imported}"
        if any(inside(imported, door) for door in FRONT_DOORS) and not inside(module, imported):
            if imported not in FRONT_DOORS_MAY_USE.get(module, ()):
                yield f"{where}: nothing imports a front door"
        elif any(inside(imported, r) and not inside(module, r) for r in CLOSED):
            yield f"{where}: nothing imports it but its own front door"
        elif module in FRONT_DOORS or module == "foley_jax":
            pass
        elif ours(imported) and not any(inside(imported, r) for r in {room, *MAY_IMPORT[room]}):
            yield f"{where}: {room} may import {sorted(MAY_IMPORT[room])}"
        outside = imported.split(".")[0]
        allowed = ONLY_IN.get(outside)
        if allowed and not any(inside(module, name) for name in allowed):
            yield f"{where}: only {', '.join(allowed)} may"
        if inside(module, JAX_ONLY) and outside in ("flax", "optax"):
            yield f"{where}: {JAX_ONLY} is jax only"


def test_every_file_has_a_room():
    homeless = [
        module
        for module in FILES
        if room_of(module) is None and module not in FRONT_DOORS and module != "foley_jax"
    ]
    assert not homeless, f"add them to MAY_IMPORT or FRONT_DOORS: {homeless}"


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_downwards(module):
    assert not list(complaints(module))


def test_no_circles_between_modules():
    graph = {m: {i for i, _ in imports(m) if i in FILES and i != m} for m in FILES}
    done, path = set(), []

    def visit(module):
        assert module not in path, f"circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module in done:
            return
        path.append(module)
        for imported in sorted(graph[module]):
            visit(imported)
        path.pop()
        done.add(module)

    for module in sorted(graph):
        visit(module)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("foley_jax.diff_foley.x", "from foley_jax.mm_diffusion import blocks", "may import"),
        ("foley_jax.diff_foley.x", "from foley_jax.training import loop", "may import"),
        ("foley_jax.layers.x", "import foley_jax.data.records", "may import"),
        ("foley_jax.media.x", "def f():\n    from foley_jax import main", "front door"),
        ("foley_jax.training.x", "import orbax.checkpoint as ocp", "only foley_jax.training.ch"),
        ("data_prep.x", "from foley_jax.data import pipeline\nimport grain", "only foley_jax.data"),
        ("foley_jax.diffusion.x", "from flax import nnx", "jax only"),
        ("foley_jax.data.x", "from ..training import loop", "may import"),
        ("foley_jax.diff_foley.x", "from foley_jax.training import task", None),
        ("foley_jax.sample", "from foley_jax.bench import measure", "its own front door"),
        ("foley_jax.bench.x", "def f():\n    import torch", "only foley_jax.bench.peers may"),
        ("foley_jax.bench.peers.x", "def f():\n    import torch, diffusers", None),
        ("foley_jax.sample", "from foley_jax.training import checkpoint", None),
    ],
)
def test_the_rules_bite(tmp_path, monkeypatch, module, source, complaint):
    """A test that cannot fail proves nothing."""
    path = tmp_path / "x.py"
    path.write_text(source)
    monkeypatch.setitem(FILES, module, path)
    monkeypatch.setattr(Path, "relative_to", lambda self, *_: self)
    found = list(complaints(module))
    assert bool(found) == (complaint is not None), found
    assert complaint is None or complaint in found[0]


def test_importing_touches_no_device():
    """`jax.distributed.initialize` refuses to work after any use of a device."""
    lines = [f"import {module}" for module in sorted(FILES) if ".__" not in module]
    code = "\n".join(
        ["import jax, sys", "sys.argv = ['x']", *lines]
        + ["from jax._src import xla_bridge", "assert not xla_bridge._backends, 'device used'"]
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
