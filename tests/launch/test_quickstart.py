"""The notebook, its code cells run one after the other: with a tiny model, and the boxed one."""

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


def test_it_installs_shows_and_takes_a_video_of_ones_own():
    tags = [cell["metadata"].get("tags", []) for cell in _cells()]
    (install,) = (c for c, t in zip(_cells(), tags) if "install" in t)
    assert "pip install" in "".join(install["source"])
    text = "\n".join(_code())
    assert 'get("FOLEY_VIDEO"' in text and "draw_mel" in text and "display.Video" in text


@pytest.mark.slow
@pytest.mark.parametrize(("model", "own_video"), [("tiny", True), ("embedded", False)])
def test_every_cell_runs(tmp_path, monkeypatch, model, own_video):
    out = tmp_path / "out"
    path = model if model == "embedded" else tiny_foley.save_runs(tmp_path / "runs") / "ldm"
    fields = {"MODEL": path, "SECONDS": 1, "STEPS": 2, "OUT": out}
    if own_video:
        (fields["VIDEO"],) = tiny_foley.write_videos(tmp_path, [1.0])
    for name, value in fields.items():
        monkeypatch.setenv(f"FOLEY_{name}", str(value))
    shown = []
    display = types.SimpleNamespace(Video=lambda path, embed: path, display=shown.append)
    ipython = types.SimpleNamespace(
        display=display, get_ipython=lambda: None, version_info=(9, 0, 0)
    )
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # matplotlib asks whether it is running
    matplotlib.pyplot.switch_backend("agg")
    namespace = {}
    for number, source in enumerate(_code()):
        exec(compile(source, f"cell {number}", "exec"), namespace)
    assert shown == [str(out / "with_audio.mp4")]
    names = {path.name for path in out.iterdir()}
    made = {"with_audio.mp4", "audio.wav", "quickstart.png", "near.mp4", "spliced.mp4"}
    assert names == (made if own_video else made | {"drawn.mp4"})
    audio_L = namespace["clip"].audio
    assert len(audio_L) == 16000 and np.isfinite(audio_L).all()
    old_L = audio_io.load(out / "audio.wav", 16000)
    np.testing.assert_array_equal(namespace["spliced"].audio[:4000], old_L[:4000])
    assert np.abs(namespace["near"].audio - audio_L).max() > 1e-3
