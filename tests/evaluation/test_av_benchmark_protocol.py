"""Protocol `av-benchmark` over folders of audio clips: caches to and fro, gaps, what is skipped."""

import json

import av_benchmark_torch as official
import numpy as np
import pytest
import torch

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation import feature_store
from foley_jax.evaluation.networks import registry, vggish
from foley_jax.evaluation.pages import page
from foley_jax.evaluation.protocols import (
    av_benchmark_audio,
    av_benchmark_cache,
    av_benchmark_figures,
    av_benchmark_protocol,
    feature_rules,
    protocol,
)
from foley_jax.evaluation.statistics import remarks
from foley_jax.media import audio as audio_io
from foley_jax.media import hann_resample

RATE = 16000
SECONDS = 1.0
NAMES = [f"clip{i:02}" for i in range(11)]
EXTRACTED = {"FD-VGG", "FD-PANN", "KL-PANNS-softmax", "ISC-PANNS-mean", "ISC-PANNS-std"}
BANDS = 24


class FakeNetwork:
    """Stands for a loaded network: a fixed map of the loudness in bands of frequency."""

    computed = 0

    def __init__(self, name):
        rng = np.random.default_rng(len(name))
        self.name = name
        self.maps = {
            "embedding": rng.normal(size=(BANDS, {"vggish": 128, "passt": 768}.get(name, 2048))),
            "logits": rng.normal(size=(BANDS, 527)) / 4,
        }

    def __call__(self, audio_BL):
        FakeNetwork.computed += len(audio_BL)
        power = np.abs(np.fft.rfft(audio_BL)) ** 2 / audio_BL.shape[1]
        bands = [part.mean(axis=1) for part in np.array_split(power, BANDS, axis=1)]
        loudness = np.log(np.stack(bands, axis=1) + 1e-6)
        found = {k: np.maximum(loudness @ m, 0).astype("f4") for k, m in self.maps.items()}
        if self.name != "vggish":
            return found
        windows = vggish.windows_of(audio_BL.shape[1])
        scale = np.linspace(0.9, 1.1, windows, dtype=np.float32)
        return {"embedding": found["embedding"][:, None] * scale[None, :, None]}


@pytest.fixture(autouse=True)
def _no_networks(monkeypatch):
    monkeypatch.setattr(registry, "load", lambda name, *_, **__: FakeNetwork(name))


def _networks(root, names=("panns_16k", "vggish")):
    """Networks whose weight files are there, but never read."""
    folder = root / f"weights{len(names)}"
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / registry.NETWORKS[name].files[0]).write_bytes(name.encode())
    return feature_rules.Networks(folder, None, feature_store.FeatureStore(root / "store"))


def _audio(seed, length_s=2.5):
    """Noise with a slope of its own in frequency."""
    rng = np.random.default_rng(seed)
    noise = np.fft.rfft(rng.normal(size=round(length_s * RATE)))
    shaped = np.fft.irfft(noise * np.linspace(1, 0.1 + rng.random(), len(noise)) ** 2)
    return (0.2 * shaped / np.abs(shaped).max()).astype(np.float32)


@pytest.fixture
def folders(tmp_path):
    """True audio clips, and ones to be judged: louder in the highs, some not as they should be."""
    for name in ("true", "ours"):
        (tmp_path / name).mkdir()
    for seed, name in enumerate(NAMES):
        waveform = _audio(seed)
        audio_io.write_wav(tmp_path / f"true/{name}.wav", waveform, RATE)
        bright = waveform + 0.05 * np.random.default_rng(99).normal(size=len(waveform))
        audio_io.write_wav(tmp_path / f"ours/{name}.wav", bright, RATE)
    return tmp_path


def _rules(root, networks=None, **options):
    options = {"cache": root / "caches", "seconds": SECONDS, **options}
    return av_benchmark_protocol.AvBenchmark(networks, **options)


def _evaluate(rules, root, *systems):
    runs = {"ours": [root / name for name in systems or ("ours",)]}
    return protocol.evaluate(rules, runs, root / "true")


def test_what_is_extracted_is_scored_and_what_is_not_is_skipped_by_name(folders):
    rules = _rules(folders, _networks(folders))
    found = _evaluate(rules, folders)
    true, ours = found.figures["reference"], found.figures["ours"]
    keys = {key for metric in av_benchmark_figures.METRICS for key in metric.keys} | {"DeSync"}
    assert keys & set(ours) == EXTRACTED and set(found.skipped) == keys - EXTRACTED
    weights = folders / "weights2"
    assert found.skipped["IB-Score"] == (
        f"skipped: reference, ours: no imagebind_audio.pth in its caches; no imagebind_huge.pth in "
        f"{weights}; reference: no imagebind_video.pth in its caches; no imagebind_huge.pth in "
        f"{weights}"
    )
    assert "no synchformer_state_dict.pth or 24-01-04T16-39-21.pt" in found.skipped["DeSync"]
    for key in ("FD-VGG", "FD-PANN", "KL-PANNS-softmax"):
        assert true[key] == pytest.approx(0.0, abs=1e-6) and ours[key] > 0.01
    assert true["shuffled_KL-PANNS-softmax"] > 0.01
    halves = found.figures[protocol.HALVES]
    assert halves["FD-PANN"] > 0 and "KL-PANNS-softmax" not in halves and halves["clips"] == 6
    settings = rules.settings()
    files = ("pann_features", "vggish_features")
    assert settings["features"]["ours"] == dict.fromkeys(files, "extracted")
    assert set(settings["networks"]) == {"panns_16k", "vggish"}
    json.dumps(settings)
    rows = [row for row in found.samples if row["system"] == "ours"]
    mean = np.mean([row["KL-PANNS-softmax"] for row in rows])
    assert mean == pytest.approx(ours["KL-PANNS-softmax"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Matrix is singular")  # the tool's root of few audio clips
@pytest.mark.parametrize("preset", av_benchmark_figures.PRESETS)
def test_the_tool_reads_our_caches_and_finds_the_same(folders, preset):
    found = _evaluate(_rules(folders, _networks(folders), preset=preset), folders)
    for name in ("ours", "reference"):
        panns = official.load(folders / "caches" / name, "pann_features")
        shapes = {key: tuple(value.shape) for key, value in panns[NAMES[0]].items()}
        assert shapes == {"logits": (527,), "2048": (2048,), "clipwise_output": (527,)}
        assert list(shapes) == ["logits", "2048", "clipwise_output"]  # as its network gives them
        tags = panns[NAMES[0]]
        assert torch.allclose(tags["clipwise_output"], tags["logits"].sigmoid(), atol=1e-7)
        windows = official.load(folders / "caches" / name, "vggish_features")
        assert list(windows) == list(panns) == NAMES
        assert {(v.dtype, *v.shape) for v in windows.values()} == {(torch.float32, 1, 128)}
    want = official.evaluate(
        folders / "caches/ours", folders / "caches/reference", with_pann=False, with_others=False
    )
    assert set(want) == EXTRACTED - {"FD-PANN"}
    ours = found.figures["ours"]
    assert {key: ours[key] for key in want} == pytest.approx(want, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Matrix is singular")  # the tool's root of few audio clips
def test_passt_hears_ten_seconds_once_and_gives_the_tools_figures(folders, monkeypatch):
    shapes, computed = [], FakeNetwork.computed
    hear = FakeNetwork.__call__
    monkeypatch.setattr(
        FakeNetwork, "__call__", lambda self, x: shapes.append(x.shape) or hear(self, x)
    )
    found = _evaluate(_rules(folders, _networks(folders, ("passt",))), folders)
    # eleven clips of each folder in batches of four, for the embedding and the logits together
    assert set(shapes) == {(4, 10 * 32000)} and FakeNetwork.computed - computed == 2 * 12
    generated, reference = (folders / "caches" / name for name in ("ours", "reference"))
    pairs = [
        official.paired(*(official.load(folder, file) for folder in (generated, reference)))
        for file in ("passt_features_embed", "passt_logits")
    ]
    assert [tuple(x[0].shape) for x in pairs] == [(11, 768), (11, 527)]
    mean, std = official.isc(pairs[1][0])
    want = {
        "FD-PASST": official.fd(*pairs[0]),
        "KL-PASST-softmax": official.kl(*pairs[1]),
        "ISC-PASST-mean": mean,
        "ISC-PASST-std": std,
    }
    ours = found.figures["ours"]
    assert {key: ours[key] for key in want} == pytest.approx(want, rel=1e-6)
    assert found.figures["reference"]["KL-PASST-softmax"] == pytest.approx(0.0, abs=1e-9)
    assert found.figures["reference"]["shuffled_KL-PASST-softmax"] > 0.01
    file = registry.NETWORKS["vggish"].files[0]
    assert f"no {file}" in found.skipped["FD-VGG"] and not set(want) & set(found.skipped)


def test_nothing_is_computed_twice(folders):
    first = _evaluate(_rules(folders, _networks(folders)), folders)
    computed = FakeNetwork.computed
    again = _evaluate(_rules(folders, _networks(folders)), folders)
    assert FakeNetwork.computed == computed and again.figures == first.figures


def _narrow(monkeypatch):
    """Caches of few features, for roots that take no minute."""
    widths = {2048: 16, 1024: 12, 768: 10, 527: 9, 512: 8, 128: 7}
    files = {
        name: av_benchmark_cache.File(
            {key: tuple(widths.get(n, n) for n in shape) for key, shape in file.shapes.items()},
            file.is_dict,
        )
        for name, file in av_benchmark_cache.FILES.items()
    }
    monkeypatch.setattr(av_benchmark_cache, "FILES", files)


def _save_theirs(folder, seed, names=NAMES, without=()):
    """Caches as av-benchmark writes them, of random features."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    for name, file in av_benchmark_cache.FILES.items():
        saved = {}
        for stem in names:
            parts = {
                key: torch.randn([3 if n == -1 else n for n in shape], generator=generator)
                for key, shape in file.shapes.items()
            }
            saved[stem] = parts if file.is_dict else next(iter(parts.values()))
        if name not in without:
            torch.save(saved, folder / f"{name}.pth")


def test_caches_of_the_tool_give_all_its_figures_without_weights(folders, monkeypatch):
    _narrow(monkeypatch)
    _save_theirs(folders / "true/cache", 0)  # where the tool puts them
    _save_theirs(folders / "caches/ours", 1)
    rules = _rules(folders)
    found = _evaluate(rules, folders)
    want = official.evaluate(folders / "caches/ours", folders / "true/cache")
    ours = found.figures["ours"]
    assert {key: ours[key] for key in want} == pytest.approx(want, rel=1e-6)
    assert set(found.skipped) == {"DeSync"} and len(want) == 12
    used = rules.settings()["features"]["ours"]["clap_ms_audio"]
    assert list(used) == ["caches/ours"] and len(used["caches/ours"]) == 64
    assert found.figures["reference"]["FD-PASST"] == pytest.approx(0.0, abs=1e-9)


def test_the_command_needs_no_weights_where_caches_are(folders, monkeypatch, capsys):
    _narrow(monkeypatch)
    _save_theirs(folders / "caches/reference", 0)
    _save_theirs(folders / "caches/ours", 1)
    monkeypatch.setattr(page, "write", lambda *_: "nothing")
    given = ["--protocol=av-benchmark", f"--reference={folders / 'true'}", "--preset=official"]
    given += [f"--cache={folders / 'caches'}", f"--out={folders / 'out'}"]
    assert command.main([*given, f"--generated=ours={folders / 'ours'}"]) == 0
    metrics = json.loads((folders / "out/metrics.json").read_text())
    want = official.evaluate(folders / "caches/ours", folders / "caches/reference")
    ours = metrics["systems"]["ours"]
    assert {key: ours[key] for key in want} == pytest.approx(want, rel=1e-6)
    assert metrics["protocol"] == "av-benchmark" and set(metrics["skipped"]) == {"DeSync"}
    card = json.loads((folders / "out/run_card.json").read_text())["settings"]
    assert card["preset"] == "official" and card["seconds"] == 8.0
    assert set(card["features"]["ours"]["pann_features"]) == {"caches/ours"}
    assert "protocol `av-benchmark`" in capsys.readouterr().out


def test_their_caches_are_taken_before_ours_are_computed(folders):
    _save_theirs(folders / "caches/ours", 1, without=("vggish_features",))
    before = (folders / "caches/ours/pann_features.pth").read_bytes()
    computed = FakeNetwork.computed
    rules = _rules(folders, _networks(folders))
    _evaluate(rules, folders)
    assert FakeNetwork.computed - computed == 3 * len(NAMES)  # both of the reference, VGGish
    assert (folders / "caches/ours/pann_features.pth").read_bytes() == before
    used = rules.settings()["features"]["ours"]
    assert used["vggish_features"] == "extracted" and "caches/ours" in used["pann_features"]


def test_a_cache_that_lacks_audio_is_left_alone(folders):
    _save_theirs(folders / "caches/ours", 1, names=NAMES[:-1])
    before = (folders / "caches/ours/pann_features.pth").read_bytes()
    rules = _rules(folders, _networks(folders))
    found = _evaluate(rules, folders)
    assert "lacks audio clips" in rules.settings()["features"]["ours"]["pann_features"]
    assert (folders / "caches/ours/pann_features.pth").read_bytes() == before
    assert found.figures["ours"]["KL-PANNS-softmax"] < 1  # random logits are farther apart
    assert "passt_logits.pth lacks 1 audio clips (clip10)" in found.skipped["ISC-PASST-mean"]


def test_a_broken_cache_is_told(folders):
    (folders / "caches/ours").mkdir(parents=True)
    (folders / "caches/ours/passt_logits.pth").write_bytes(b"cut off")
    found = _evaluate(_rules(folders, _networks(folders)), folders)
    assert "not in the zip format of torch.save" in found.skipped["KL-PASST-softmax"]


@pytest.mark.slow
def test_own_caches_serve_without_weights_while_the_audio_are_the_same(folders):
    first = _evaluate(_rules(folders, _networks(folders)), folders)
    again = _evaluate(_rules(folders), folders)
    assert again.figures == first.figures and set(again.figures["ours"]) >= EXTRACTED
    with pytest.raises(ValueError, match="no metric of av-benchmark can be computed"):
        _evaluate(_rules(folders, seconds=1.5), folders)
    audio_io.write_wav(folders / f"ours/{NAMES[0]}.wav", _audio(50), RATE)
    with pytest.raises(ValueError, match=r"ours: no metric.*no weights of panns_16k"):
        _evaluate(_rules(folders), folders)


def test_one_network_gives_its_own_metrics(folders):
    found = _evaluate(_rules(folders, _networks(folders, ("vggish",)), cache=None), folders)
    assert "FD-VGG" in found.figures["ours"] and "FD-PANN" not in found.figures["ours"]
    file = registry.NETWORKS["panns_16k"].files[0]
    assert f"no {file}" in found.skipped["KL-PANNS-softmax"]
    assert not (folders / "caches").exists()


def test_bad_audio_are_named_and_the_rest_is_scored(folders):
    ours = folders / "ours"
    (ours / f"{NAMES[0]}.wav").unlink()
    (ours / f"{NAMES[1]}.wav").write_bytes(b"no sound")
    audio_io.write_wav(ours / f"{NAMES[2]}.wav", _audio(2)[:8000], RATE)
    audio_io.write_wav(ours / f"{NAMES[3]}.wav", np.zeros(2 * RATE, np.float32), RATE)
    audio_io.write_wav(ours / f"{NAMES[4]}.wav", _audio(4, 0.98), RATE)  # shorter, long enough
    found = _evaluate(_rules(folders, _networks(folders)), folders)
    status = {r["name"]: r["status"] for r in found.samples if r["system"] == "ours"}
    assert [status[name] for name in NAMES[:6]] == [
        "missing",
        "unreadable",
        "unreadable",
        "silent",
        "scored",
        "scored",
    ]
    why = found.systems["ours"][0]["items"]["unreadable"][NAMES[2]]
    assert "0.500 s of audio, the network needs 0.975 s" in why
    assert found.figures["ours"]["clips"] == 8
    lacking = found.figures["ours"]["ISC-PANNS-mean"]
    assert (
        np.isnan(lacking) and remarks.remark_of(lacking) == "8 audio clips, 10 splits need as many"
    )
    # the reference has enough
    assert found.figures["reference"]["ISC-PANNS-mean"] >= 1.0
    assert "ISC-PANNS-mean" not in found.skipped


def test_every_run_has_its_own_cache(folders):
    (folders / "second").mkdir()
    for seed, name in enumerate(NAMES):
        audio_io.write_wav(folders / f"second/{name}.wav", _audio(seed + 70), RATE)
    found = _evaluate(_rules(folders, _networks(folders)), folders, "ours", "second")
    assert found.figures["ours"]["seeds"] == 2
    one, other = (official.load(folders / "caches" / n, "vggish_features") for n in _both())
    assert not torch.equal(one[NAMES[0]], other[NAMES[0]])


def _both():
    return "ours", "ours.1"


def test_audio_are_cut_and_less_their_mean(tmp_path):
    waveform = _audio(0, 3.0) + np.float32(0.25)
    audio_io.write_wav(tmp_path / "a.wav", waveform, RATE)
    stored = audio_io.load(tmp_path / "a.wav", RATE)
    want = (stored - stored.mean())[: int(1.3 * RATE)]
    for as_torchaudio in (False, True):
        found = av_benchmark_audio.read(tmp_path / "a.wav", 1.3, 0.3, as_torchaudio=as_torchaudio)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, want, atol=1e-6)
    assert len(av_benchmark_audio.read(tmp_path / "a.wav", 8.0, 0.3)) == 3 * RATE  # never padded


def test_the_official_preset_resamples_as_torchaudio(tmp_path):
    rng = np.random.default_rng(0)
    audio_io.write_wav(tmp_path / "a.wav", 0.1 * rng.normal(size=44100) + 0.2, 44100)
    native = audio_io.load(tmp_path / "a.wav", 44100)
    want = hann_resample.resample(native - native.mean(), 44100, RATE)
    found = av_benchmark_audio.read(tmp_path / "a.wav", 8.0, 0.3, as_torchaudio=True)
    np.testing.assert_allclose(found, want, atol=1e-6)
    default = av_benchmark_audio.read(tmp_path / "a.wav", 8.0, 0.3)
    assert default.shape == found.shape and np.abs(default - found).max() > 1e-3


def test_settings_that_cannot_be_are_refused(folders):
    with pytest.raises(ValueError, match="VGGish needs at least 0.975"):
        _rules(folders, seconds=0.5)
    with pytest.raises(ValueError, match="preset is 'x'"):
        _rules(folders, preset="x")
