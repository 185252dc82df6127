"""Models that travel: hashes, the card, and the way to the hub and back, through stubs of it."""

import hashlib
import json
import subprocess
import sys
import types

import ml_collections
import numpy as np
import pytest

from foley_jax import convert
from foley_jax.inference import export, load, model_card, networks
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import exported, hashes, run_directory

CONFIG = {
    "task": "ldm",
    "cavp": "elsewhere/cavp",
    "model": {"width": 2},
    "data": {"dir": "somewhere/features", "eval_split": "test"},
    "audio": {"sample_rate_hz": 16000, "num_mels": 128},
    "video": {"fps": 12.0, "height": 224, "width": 224},
    "total_steps": 900,
    "batch_size": 16,
    "ema_decay": 0.99,
}
OWN = {"README.md", "SHA256SUMS", "config.json", "weights.safetensors"}


def _save(folder, config):
    params = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    run_directory.save_model(folder, config=config, params=params, rest={"b": np.ones(1)})


@pytest.fixture
def runs(tmp_path):
    _save(tmp_path / "runs" / "ldm", CONFIG)
    _save(tmp_path / "runs" / "cavp", {"task": "cavp", "model": {"width": 3}})
    lines = [{"step": 450, "split": "eval", "loss": 0.9}, {"step": 900, "split": "eval", "loss": 1}]
    lines += [{"step": 900, "split": "train", "loss": 7.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9'
    (tmp_path / "runs" / "ldm" / "metrics.jsonl").write_text(text)
    return tmp_path / "runs"


@pytest.fixture
def client(monkeypatch, tmp_path):
    """A hub client that records what it is told; what is pushed can be had."""
    module = types.ModuleType("huggingface_hub")
    module.calls, module.pushed = [], None
    module.errors = types.SimpleNamespace(
        LocalEntryNotFoundError=FileNotFoundError,
        OfflineModeIsEnabled=ConnectionError,
        EntryNotFoundError=KeyError,
        RepositoryNotFoundError=KeyError,
        HfHubHTTPError=PermissionError,
    )
    module.constants = types.SimpleNamespace(HF_HUB_CACHE="/cache")

    def create_repo(repo, **options):
        module.calls.append((repo, options))
        if repo.startswith("others/"):
            raise PermissionError("403 Forbidden")

    def upload_folder(repo_id, folder_path, **options):
        module.pushed = folder_path
        return f"https://hub/{repo_id}"

    def snapshot_download(repo, allow_patterns, ignore_patterns):
        if module.pushed is None:
            raise KeyError(repo)
        return module.pushed

    module.create_repo, module.upload_folder = create_repo, upload_folder
    module.snapshot_download = snapshot_download
    for name in ("", ".errors", ".constants"):
        whole = module if not name else getattr(module, name[1:])
        monkeypatch.setitem(sys.modules, f"huggingface_hub{name}", whole)
    return module


def _names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_holds_all_that_loading_needs(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert convert.main(["export", str(runs / "ldm"), str(out)]) == 0
    cavp = {"cavp/SHA256SUMS", "cavp/config.json", "cavp/weights.safetensors"}
    assert _names(out) == OWN | cavp and not capsys.readouterr().err
    assert load.system_of(out) == "diff_foley"
    for folder in (out, out / "cavp"):
        lines = (folder / hashes.FILE).read_text().splitlines()
        assert {line.split("  ")[1] for line in lines} == {"config.json", "weights.safetensors"}
        for line in lines:
            digest, name = line.split("  ")
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        done = subprocess.run(["sha256sum", "-c", hashes.FILE], cwd=folder, capture_output=True)
        assert done.returncode == 0


def test_without_its_cavp_the_command_says_so(runs, tmp_path, capsys):
    (runs / "cavp" / "config.json").unlink()
    assert convert.main(["export", str(runs / "ldm"), str(tmp_path / "out")]) == 0
    assert "note: without its CAVP" in capsys.readouterr().err
    assert _names(tmp_path / "out") == OWN


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
def test_the_changed_file_is_named(runs, tmp_path, name):
    out = tmp_path / "out"
    export.write(runs / "ldm", out)
    (out / "README.md").write_text("filled in")  # is there to be changed
    run_directory.load_model_state(out)
    good = (out / name).read_bytes()
    (out / name).write_bytes(good.replace(b"16000", b"22050").replace(b"\x80\x3f", b"\x80\x40"))
    with pytest.raises(ValueError, match=f"{name} is damaged or was changed.*SHA-256"):
        run_directory.load_model_state(out)
    (out / hashes.FILE).unlink()
    run_directory.load_model_state(out)
    (out / hashes.FILE).write_text("no hash\n")
    with pytest.raises(ValueError, match="SHA256SUMS is damaged at 'no hash'"):
        run_directory.load_model_state(out)
    (out / hashes.FILE).write_text("0" * 64 + "  other.bin\n")
    with pytest.raises(ValueError, match=r"other.bin is missing, SHA256SUMS lists it"):
        run_directory.load_model_state(out)


def _head(card):
    return dict(line.split(": ", 1) for line in card.split("---")[1].split("\n") if ": " in line)


def test_the_card_says_what_is_known(runs, tmp_path):
    export.write(runs / "ldm", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    head = _head(card)
    assert head == {"license": "unknown", "library_name": "foley_jax"} and "- jax\n" in card
    assert "Parameters: 7, in" in card and "`cavp/`" in card
    assert "Steps: 0 updates of 900, batch 16, averaged with decay 0.99." in card
    assert "folder `features`" in card and "somewhere" not in card
    assert "own evaluation after step 900, on split `test`" in card
    assert "| | loss |\n| --- | --- |\n| model | 1 |" in card
    assert 'sample.load("out")' in card and card.count("to be filled in") == 2


def test_figures_come_with_their_protocol(runs, tmp_path):
    file = tmp_path / "metrics.json"
    scores = {"protocol": "onsets", "judges": "x", "systems": {"ours": {"f1": 0.5, "auc": None}}}
    for content, wanted in (
        (scores, "`onsets` of foley_jax.evaluation, which judges x.\n\n| | f1 | auc |"),
        ({"protocol": "100 clips", "fd": 12.34567}, "Protocol: 100 clips.\n\n| | fd |"),
    ):
        file.write_text(json.dumps(content))
        figures = model_card.read_figures(file)
        config = ml_collections.ConfigDict(CONFIG)
        card = model_card.text(config, step=3, parameters=1, figures=figures, licence="mit")
        assert wanted in card and _head(card)["license"] == "mit"
    assert "| model | 12.35 |" in card
    for content in ("[1]", "{}", '{"fd": "low"}', '{"systems": {"a": 3}}', "{"):
        file.write_text(content)
        with pytest.raises(ValueError, match="holds no figures"):
            export.write(runs / "ldm", tmp_path / "out", figures=file)
    assert not (tmp_path / "out").exists()


def test_every_stage_has_a_card():
    for task in task_lib.TASKS:
        card = model_card.text(ml_collections.ConfigDict({"task": task}), step=None, parameters=1)
        assert f"Stage `{task}`" in card and "It gives what its stage trains" not in card


def test_a_pushed_model_is_read_back(runs, tmp_path, client, capsys):
    out = tmp_path / "out"
    command = ["export", str(runs / "ldm"), str(out), "--push=me/foley"]
    assert convert.main(command) == 0
    said = capsys.readouterr().out
    assert client.calls == [("me/foley", {"private": True, "exist_ok": True, "repo_type": "model"})]
    assert "uploading 7 files to me/foley (private if it is new)" in said
    assert f"  weights.safetensors  {(out / exported.WEIGHTS).stat().st_size:,} bytes" in said
    assert "https://hub/me/foley" in said
    assert networks.on_disk("hub:me/foley") == out
    assert load.system_of("hub:me/foley") == "diff_foley"
    mmd = {"task": "mm_diffusion", "model": {}}
    _save(tmp_path / "mm", mmd)
    command = ["export", str(tmp_path / "mm"), str(tmp_path / "mmd"), "--push=me/mm", "--public"]
    assert convert.main(command) == 0
    assert client.calls[-1][1]["private"] is False
    assert load.system_of("hub:me/mm") == "mm_diffusion"


def test_an_official_repository_stays_what_it_is(client, tmp_path):
    assert networks.on_disk("hub:me/models") == "hub:me/models"  # nothing there
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text("{}")
    client.pushed = str(tmp_path / "hub")
    assert networks.on_disk("hub:me/models") == "hub:me/models"  # no weights of ours
    assert networks.on_disk("hub:me/models/a.ckpt") == "hub:me/models/a.ckpt"
    assert networks.on_disk("runs/ldm") == "runs/ldm"


def test_what_cannot_be_pushed_is_told(runs, tmp_path, client, capsys):
    command = ["export", str(runs / "ldm"), str(tmp_path / "out")]
    assert convert.main([*command, "--push=nobody"]) == 1
    assert "'nobody' is not of the form OWNER/NAME" in capsys.readouterr().err
    assert not client.calls and not (tmp_path / "out").exists()
    assert convert.main([*command, "--push=others/foley"]) == 1
    assert "could not be uploaded to others/foley: 403" in capsys.readouterr().err
    assert _names(tmp_path / "out") >= OWN  # what was written stays
    (tmp_path / "out" / "notes.txt").write_text("private")
    with pytest.raises(ValueError, match=r"notes.txt is no file of an exported model"):
        export.files(tmp_path / "out")
