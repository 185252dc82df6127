"""Who may import whom: the floors of the house, read from the source with `ast`."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("foley_jax", "data_prep", "configs")

# From the ground up. A room imports only from lower floors; rooms on one floor do not know each
# other.
FLOORS = (
    ("foley_jax.diffusion", "foley_jax.media", "foley_jax.runtime"),
    ("foley_jax.interop", "foley_jax.kernels"),
    ("foley_jax.layers", "foley_jax.data"),
    ("foley_jax.vocoders", "foley_jax.training"),
    ("foley_jax.diff_foley", "foley_jax.mm_diffusion", "foley_jax.mmaudio"),
    (
        "foley_jax.inference",
        "foley_jax.evaluation",
        "foley_jax.bench",
        "foley_jax.aot",
        "data_prep",
    ),
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
# front doors stand above all rooms, and nothing imports them
DOORS = tuple(f"foley_jax.{name}" for name in ("main", "sample", "generate", "convert", "serve"))
# commands inside a room: these may enter other rooms of their floor, and nothing imports them
COMMANDS = {
    "foley_jax.evaluation.__main__": "foley_jax.inference",
    "foley_jax.evaluation.memorisation.__main__": "foley_jax.inference",
    "foley_jax.evaluation.super_resolution": "foley_jax.inference",
}
# who may know `configs`: what measures the configs themselves, and what writes an official
# checkpoint's run folder with the paper's
READ_CONFIGS = ("foley_jax.bench", "foley_jax.inference.official")
# modules found by their names in a table; nobody else may import by name
BY_NAME = {
    "foley_jax.training.task",
    "foley_jax.interop.registry",
    "foley_jax.inference.official",
    "foley_jax.bench.suites",
}

# outside package -> the only modules that may import it
ONLY_IN = {
    "orbax": ("foley_jax.training.checkpointing",),
    "grain": ("foley_jax.data.pipeline",),
    "av": ("foley_jax.media",),
    "torch": ("foley_jax.bench.peers",),
    "diffusers": ("foley_jax.bench.peers",),
    "huggingface_hub": ("foley_jax.interop.hub",),
    "gradio": ("foley_jax.inference.web", "foley_jax.inference.web_guard"),
    "librosa": ("foley_jax.media", "foley_jax.vocoders"),
    "transformers": ("foley_jax.evaluation.networks.captions",),
    "tensorboardX": ("foley_jax.training.logging",),
    "h5py": ("foley_jax.evaluation.networks.keras_weights",),
    "tensorflow_datasets": ("data_prep.tfds_export",),
}
# modules that cannot be imported without an extra of the package; a door says which
NEED_EXTRAS = ("foley_jax.inference.web", "foley_jax.inference.web_guard")
JAX_ONLY = "foley_jax.diffusion"


def files():
    """Returns module name -> path of everything that is installed."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


FILES = files()


def modules_of(name, level, names, importer, path):
    """Returns the full names that one import statement may mean."""
    if level:
        package = importer.split(".") if path.name == "__init__.py" else importer.split(".")[:-1]
        base = package[: len(package) - level + 1]
        name = ".".join([*base, *([name] if name else [])])
    whole = [f"{name}.{n}" for n in names]
    return [module for module in whole if module in FILES] or [name]


def imported_by_name(call):
    """Returns the begin of the name that a call imports a module by; None of other calls."""
    called = (
        call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    )
    if called not in ("import_module", "__import__"):
        return None
    name = call.args[0] if call.args else None
    if isinstance(name, ast.JoinedStr):
        name = name.values[0]
    return name.value if isinstance(name, ast.Constant) else ""


def imports(module):
    """Yields (imported module, line, whether by name) of every import, wherever it stands."""
    path = FILES[module]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, False
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            for name in modules_of(node.module, node.level, names, module, path):
                yield name, node.lineno, False
        elif isinstance(node, ast.Call):
            name = imported_by_name(node)
            if name is not None:
                yield name.rstrip("."), node.lineno, True


def inside(module, room):
    return module == room or module.startswith(room + ".")


def ours(module):
    return module.split(".")[0] in PACKAGES


def room_of(module):
    return next((room for room in LEVEL if inside(module, room)), None)


def complaint_of_ours(module, imported):
    """Returns what is wrong with an import of our own code; None if nothing is."""
    if imported == "foley_jax":
        return None
    if module in DOORS and imported in COMMANDS:
        return None  # hands its arguments on
    if any(inside(imported, door) for door in (*DOORS, *COMMANDS)):
        return "nothing imports a front door"
    if inside(imported, "configs"):
        known = any(inside(module, reader) for reader in READ_CONFIGS) or inside(module, "configs")
        return None if known else "configs are passed in"
    here, there = room_of(module), room_of(imported)
    if module in DOORS or here == there:
        return None
    if here is None or there is None:
        return f"{module if here is None else imported} stands in no room"
    if COMMANDS.get(module) == there or LEVEL[there] < LEVEL[here]:
        return None
    return f"{there} is not below {here}"


def folder_warnings(module):
    """Yields what is wrong with a file's imports."""
    for imported, line, by_name in imports(module):
        where = f"{FILES[module].relative_to(ROOT)}:{line} imports {imported or 'by name'}"
        if by_name and module not in BY_NAME:
            yield f"{where}: only {', '.join(sorted(BY_NAME))} look modules up by name"
        if ours(imported):
            complaint = complaint_of_ours(module, imported)
            if complaint:
                yield f"{where}: {complaint}"
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
        if room_of(module) is None
        and module not in (*DOORS, "foley_jax")
        and not inside(module, "configs")
    ]
    assert not homeless, f"add them to a room of FLOORS: {homeless}"


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_downwards(module):
    assert not list(folder_warnings(module))


def test_no_circles_between_modules():
    graph = {m: {i for i, _, _ in imports(m) if i in FILES and i != m} for m in FILES}
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
        ("foley_jax.diff_foley.x", "from foley_jax.mm_diffusion.models import blocks", "not below"),
        ("foley_jax.layers.x", "import foley_jax.data.records", "not below"),
        ("foley_jax.data.x", "from ..training import loop", "not below"),
        ("foley_jax.bench.x", "from foley_jax.aot import cost", "not below"),
        ("foley_jax.evaluation.x", "from foley_jax.inference import load", "not below"),
        ("foley_jax.runtime.x", "import importlib\nimportlib.import_module('numpy')", "by name"),
        ("foley_jax.data.x", "__import__(name)", "by name"),
        ("foley_jax.training.task", "import_module('foley_jax.bench.case')", "not below"),
        ("foley_jax.training.x", "from configs import ldm", "passed in"),
        ("foley_jax.inference.x", "importlib.import_module(f'configs.{x}')", "by name"),
        ("foley_jax.media.x", "def f():\n    from foley_jax import main", "front door"),
        ("foley_jax.aot.x", "from foley_jax.evaluation import __main__", "front door"),
        ("foley_jax.x", "from foley_jax.media import audio", "in no room"),
        ("foley_jax.media.x", "import orbax.checkpoint as ocp", "only foley_jax.training.ch"),
        ("data_prep.x", "from foley_jax.data import pipeline\nimport grain", "only foley_jax.data"),
        ("foley_jax.bench.x", "def f():\n    import torch", "only foley_jax.bench.peers may"),
        ("foley_jax.diffusion.x", "from flax import nnx", "jax only"),
        ("foley_jax.diff_foley.x", "from foley_jax.training import task", None),
        ("foley_jax.bench.peers.x", "def f():\n    import torch, diffusers", None),
        ("foley_jax.evaluation.__main__", "from foley_jax.inference import load", None),
        ("foley_jax.sample", "from foley_jax.inference import load", None),
        ("foley_jax.bench.x", "from configs import ldm", None),
        ("configs.x", "from configs import base", None),
    ],
)
def test_the_rules_bite(tmp_path, monkeypatch, module, source, complaint):
    """A test that cannot fail proves nothing."""
    path = tmp_path / "x.py"
    path.write_text(source)
    monkeypatch.setitem(FILES, module, path)
    monkeypatch.setattr(Path, "relative_to", lambda self, *_: self)
    found = list(folder_warnings(module))
    assert bool(found) == (complaint is not None), found
    assert complaint is None or complaint in found[0]


def test_a_loose_module_is_seen(monkeypatch):
    monkeypatch.setitem(FILES, "foley_jax.loose", ROOT / "foley_jax/main.py")
    with pytest.raises(AssertionError, match="foley_jax.loose"):
        test_every_file_has_a_room()


def test_importing_touches_no_device():
    """`jax.distributed.initialize` refuses to work after any use of a device."""
    lines = [
        f"import {module}"
        for module in sorted(FILES)
        if ".__" not in module and module not in NEED_EXTRAS
    ]
    code = "\n".join(
        ["import jax, sys", "sys.argv = ['x']", *lines]
        + ["from jax._src import xla_bridge", "assert not xla_bridge._backends, 'device used'"]
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_no_test_imports_another():
    tests = ROOT / "tests"
    found = []
    for path in sorted(tests.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [
                alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)
            ]
            if isinstance(node, ast.Import | ast.ImportFrom):
                names.append(getattr(node, "module", None) or "")
                found += [
                    f"{path.name}: {n}" for n in names if n.split(".")[-1].startswith("test_")
                ]
    assert not found
