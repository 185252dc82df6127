"""The notebook, its code cells run one after the other in one namespace, with a tiny model."""

import json
import pathlib
import sys
import types

import matplotlib.pyplot
import numpy as np
import pytest
import tiny_foley

from foley_jax.media import audio as audio_io

NOTEBOOK = pathlib.Path(__file__).parents[2] / "launch" / "quickstart.ipynb"


def _cells():
    return json.loads(NOTEBOOK.read_text())["cells"]


def _code():
    """Source of the cells that are Python, but for the installation."""
    cells = [cell for cell in _cells() if cell["cell_type"] == "code"]
    return ["".join(c["source"]) for c in cells if "install" not in c["metadata"].get("tags", ())]


def test_the_notebook_is_one_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in notebook["cells"]}) > 10
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    for number, source in enumerate(_code()):
        compile(source, f"cell {number}", "exec")
    assert 'get("FOLEY_MODEL", "embedded")' in _code()[0]


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch):
    runs = tiny_foley.save_runs(tmp_path / "runs")
    out = tmp_path / "out"
    fields = {"MODEL": runs / "ldm", "SECONDS": 1, "STEPS": 2, "OUT": out}
    for name, value in fields.items():
        monkeypatch.setenv(f"FOLEY_{name}", str(value))
    shown = []
    display = types.SimpleNamespace(Video=lambda path, embed: path, display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=display))
    matplotlib.pyplot.switch_backend("agg")
    namespace = {}
    for number, source in enumerate(_code()):
        exec(compile(source, f"cell {number}", "exec"), namespace)
    assert shown == [str(out / "with_audio.mp4")]
    names = {path.name for path in out.iterdir()}
    made = {"drawn.mp4", "with_audio.mp4", "audio.wav", "quickstart.png"}
    assert names == made | {"near.mp4", "spliced.mp4"}
    audio_L = namespace["clip"].audio
    assert len(audio_L) == 16000 and np.isfinite(audio_L).all()
    old_L = audio_io.load(out / "audio.wav", 16000)
    np.testing.assert_array_equal(namespace["spliced"].audio[:4000], old_L[:4000])
    assert np.abs(namespace["near"].audio - audio_L).max() > 1e-3
