"""Files from the hub: what is asked for, and what is said when it cannot be had. No network."""

from pathlib import Path
import sys
import types

import pytest

from foley_jax import convert
from foley_jax.interop import hub, registry


class _LocalEntryNotFoundError(FileNotFoundError):
    pass


class _Offline(ConnectionError):
    pass


class _EntryNotFoundError(Exception):
    pass


class _RepositoryNotFoundError(Exception):
    pass


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A hub client that records its calls and serves `tmp_path`; `fake.error` is raised if set."""
    module = types.ModuleType("huggingface_hub")
    module.calls, module.error, module.folder = [], None, tmp_path

    def hf_hub_download(repo, file):
        module.calls.append((repo, file))
        if module.error:
            raise module.error
        return str(tmp_path / file)

    def snapshot_download(repo, allow_patterns, ignore_patterns):
        module.calls.append((repo, tuple(allow_patterns), tuple(ignore_patterns or ())))
        if module.error:
            raise module.error
        return str(tmp_path)

    module.hf_hub_download, module.snapshot_download = hf_hub_download, snapshot_download
    module.errors = types.ModuleType("huggingface_hub.errors")
    module.errors.LocalEntryNotFoundError = _LocalEntryNotFoundError
    module.errors.OfflineModeIsEnabled = _Offline
    module.errors.EntryNotFoundError = _EntryNotFoundError
    module.errors.RepositoryNotFoundError = _RepositoryNotFoundError
    module.constants = types.ModuleType("huggingface_hub.constants")
    module.constants.HF_HUB_CACHE = "/cache/hub"
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", module.errors)
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", module.constants)
    return module


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_a_named_file_is_fetched(fake):
    assert hub.fetch("hub:me/models/sub/w.ckpt") == fake.folder / "sub/w.ckpt"
    assert fake.calls == [("me/models", "sub/w.ckpt")]


def test_a_file_is_found_by_its_usual_name(fake):
    _touch(fake.folder, "ckpt/eval_classifier.ckpt", "ckpt/other.ckpt")
    found = hub.fetch("hub:me/models", file_names=("a.ckpt", "eval_classifier.ckpt"))
    assert found == fake.folder / "ckpt/eval_classifier.ckpt"
    assert fake.calls == [("me/models", ("*a.ckpt", "*eval_classifier.ckpt"), ())]
    with pytest.raises(ValueError, match="no b.ckpt there; name the file, hub:me/models/FILE"):
        hub.fetch("hub:me/models", file_names=("b.ckpt",))
    with pytest.raises(ValueError, match="no usual file name"):
        hub.fetch("hub:me/models")


def test_of_a_diffusers_folder_only_the_weights_are_fetched(fake):
    _touch(fake.folder, "unet/w.bin", "vae/w.bin", "unet/w.safetensors")
    assert hub.fetch("hub:me/sd", folders=("unet", "vae"), averaged=True) == fake.folder
    skipped = ("*.fp16.*", "*.non_ema.*")
    assert fake.calls == [
        ("me/sd", ("unet/*.safetensors", "vae/*.safetensors"), skipped),
        ("me/sd", ("unet/*.bin", "vae/*.bin"), skipped),  # one folder has no safetensors
    ]
    with pytest.raises(ValueError, match="no text_encoder/ there"):
        hub.fetch("hub:me/sd", folders=("text_encoder",))


@pytest.mark.parametrize("error", [_LocalEntryNotFoundError("x"), _Offline("x")])
@pytest.mark.parametrize("source", ["hub:me/models/w.ckpt", "hub:me/models"])
def test_offline_the_error_says_which_file_to_put_where(fake, error, source):
    fake.error = error
    with pytest.raises(FileNotFoundError) as caught:
        hub.fetch(source, file_names=("w.ckpt",))
    message = str(caught.value)
    assert "w.ckpt is not in the cache" in message
    assert "https://huggingface.co/me/models/tree/main" in message
    assert "/cache/hub/models--me--models" in message


@pytest.mark.parametrize("error", [_EntryNotFoundError("x"), _RepositoryNotFoundError("x")])
def test_what_the_hub_does_not_have_is_said(fake, error):
    fake.error = error
    with pytest.raises(FileNotFoundError, match="the hub has no w.ckpt there"):
        hub.fetch("hub:me/models/w.ckpt")


@pytest.mark.parametrize("source", ["hub:me", "hub:", "hub:me/", "hub:me//w.ckpt", "me/models"])
def test_sources_of_another_form_are_refused(fake, source):
    with pytest.raises(ValueError, match="not of the form hub:OWNER/NAME"):
        hub.fetch(source)
    assert not fake.calls


def test_without_the_client_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"foley_jax\[convert\]"):
        hub.fetch("hub:me/models/w.ckpt")


def test_the_converter_asks_for_what_its_kind_needs(fake):
    kinds = registry.kinds()
    path = registry._path(kinds["diff_foley/cavp"], Path("here.ckpt"))
    assert path == Path("here.ckpt") and not fake.calls
    _touch(fake.folder, "x/ldm_epoch240.ckpt")
    assert registry._path(kinds["diff_foley/ldm"], "hub:a/b").name == "ldm_epoch240.ckpt"
    _touch(fake.folder, "unet/w.safetensors", "vae/w.safetensors")
    assert registry._path(kinds["stable_diffusion/v1"], "hub:a/b") == fake.folder


def test_command_line_shows_the_error_in_one_line(fake, tmp_path, capsys):
    fake.error = _Offline("x")
    argv = ["diff_foley/cavp", "hub:me/models", str(tmp_path / "out")]
    assert convert.main(argv) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: hub:me/models: cavp_epoch66.ckpt") and error.count("\n") == 1
