"""CLAP scores of protocol `av-benchmark`: captions, what is heard, caches, and gaps by name."""

import numpy as np
import pytest
import torch

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation import feature_store
from foley_jax.evaluation.networks import captions, laion_clap, ms_clap, registry
from foley_jax.evaluation.protocols import (
    av_benchmark_audio,
    av_benchmark_protocol,
    av_benchmark_text,
    feature_rules,
    protocol,
)
from foley_jax.media import audio as audio_io
from foley_jax.media import hann_resample

RATE, SECONDS = 16000, 1.0
TEXTS = {"low": "a low tone, far away", "high": 'a "high" tone', "mid": "ein mittlerer Ton, schön"}
HERTZ = {"low": 200.0, "high": 3000.0, "mid": 900.0}
WIDTHS = {"laion_clap": 512, "ms_clap": 1024}
SCORES = {"LAION-CLAP-Score", "MS-CLAP-Score"}


class FakeTower:
    """Embeds an audio clip by its highest peak in frequency, and a caption as its tone."""

    computed = 0

    def __init__(self, name):
        self.name = name
        self.width = WIDTHS[name.removesuffix("_text")]

    def __call__(self, batch):
        FakeTower.computed += len(batch)
        if self.name.endswith("_text"):
            hertz = batch[:, 0, 0].astype(float)
        else:
            rate_hz = registry.NETWORKS[self.name].rate_hz
            power = np.abs(np.fft.rfft(batch)) ** 2
            hertz = power.argmax(axis=1) * rate_hz / batch.shape[1]
        angle = np.log(hertz)[:, None] * np.linspace(1, 3, self.width)[None]
        return {"embedding": np.cos(angle).astype("f4")}


def _tokenise(folder):
    assert all((folder / name).is_file() for name in captions.FILES)
    tones = {text: HERTZ[name] for name, text in TEXTS.items()}
    return lambda text: np.full((2, 77), tones[text], np.int32)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """True tones, the same by another system but two of them swapped, and captions."""
    monkeypatch.setattr(registry, "load", lambda name, *_, **__: FakeTower(name))
    fake = {name: (_tokenise, folder) for name, (_, folder) in captions.TOKENISERS.items()}
    monkeypatch.setattr(captions, "TOKENISERS", fake)
    t = np.arange(RATE * 2) / RATE
    swapped = {"low": "high", "high": "low", "mid": "mid"}
    for name in TEXTS:
        for folder, tone in (("true", name), ("swapped", swapped[name])):
            (tmp_path / folder).mkdir(exist_ok=True)
            wave = 0.3 * np.sin(2 * np.pi * HERTZ[tone] * t).astype(np.float32)
            audio_io.write_wav(tmp_path / f"{folder}/{name}.wav", wave, RATE)
    lines = [f'{name},"{text.replace(chr(34), 2 * chr(34))}",x' for name, text in TEXTS.items()]
    (tmp_path / "captions.csv").write_text("\n".join(["name,caption,more", *lines]))
    return tmp_path


def _networks(root, vocabularies=("roberta-base", "gpt2")):
    folder = root / f"weights{len(vocabularies)}"
    for name in WIDTHS:
        folder.mkdir(exist_ok=True)
        (folder / registry.NETWORKS[name].files[0]).write_bytes(name.encode())
    for vocabulary in vocabularies:
        (folder / vocabulary).mkdir()
        for file in captions.FILES:
            (folder / vocabulary / file).write_text("")
    return feature_rules.Networks(folder, None, feature_store.FeatureStore(root / "store"))


def _rules(root, networks, **options):
    options = {"cache": root / "caches", "seconds": SECONDS} | options
    return av_benchmark_protocol.AvBenchmark(networks, **options)


def _evaluate(rules, root):
    return protocol.evaluate(rules, {"swapped": [root / "swapped"]}, root / "true")


def test_scores_compare_audio_with_its_caption(root):
    rules = _rules(root, _networks(root), captions=root / "captions.csv")
    found = _evaluate(rules, root)
    assert found.skipped.keys() & SCORES == set()
    for key in SCORES:
        assert found.figures["reference"][key] > 0.99
        assert found.figures["swapped"][key] < 0.7  # one of three is right
        assert found.figures["reference"][f"shuffled_{key}"] < 0.7
    settings = rules.settings()
    assert {"laion_clap", "laion_clap_text", "ms_clap", "ms_clap_text"} == set(settings["networks"])
    assert len(settings["captions_sha256"]) == 64


def test_caches_are_those_of_the_official_tool(root):
    """torch opens them, and gives the same scores of them; without networks they are enough."""
    csv = root / "captions.csv"
    found = _evaluate(_rules(root, _networks(root), captions=csv), root)
    for file, width in (("clap_laion", 512), ("clap_ms", 1024)):
        text = torch.load(root / f"caches/reference/{file}_text.pth", weights_only=True)
        audio = torch.load(root / f"caches/swapped/{file}_audio.pth", weights_only=True)
        assert list(text) == list(audio) == sorted(TEXTS)
        assert text["low"].shape == audio["low"].shape == (width,)
        assert not (root / f"caches/swapped/{file}_text.pth").exists()
        key = {"clap_laion": "LAION-CLAP-Score", "clap_ms": "MS-CLAP-Score"}[file]
        pairs = [torch.stack([part[name] for name in sorted(TEXTS)]) for part in (text, audio)]
        score = torch.cosine_similarity(*pairs).mean().item()
        assert found.figures["swapped"][key] == pytest.approx(score, abs=1e-6)
    before = FakeTower.computed
    again = _evaluate(_rules(root, None), root)
    assert FakeTower.computed == before
    for key in SCORES:
        assert again.figures["swapped"][key] == found.figures["swapped"][key]


def test_what_is_missing_is_said(root):
    networks = _networks(root, vocabularies=("gpt2",))
    found = _evaluate(_rules(root, networks, captions=root / "captions.csv"), root)
    assert "MS-CLAP-Score" in found.figures["swapped"]
    why = found.skipped["LAION-CLAP-Score"]
    assert "no roberta-base/vocab.json and roberta-base/merges.txt in" in why
    found = _evaluate(_rules(root, _networks(root), cache=None), root)
    assert (
        "reference: no clap_laion_text.pth in its caches; no --captions"
        in (found.skipped["LAION-CLAP-Score"])
    )
    some = root / "some.csv"
    some.write_text("name,caption\nlow,a low tone\n")
    found = _evaluate(_rules(root, networks, cache=None, captions=some), root)
    assert "no caption of 2 audio clips (high, mid)" in found.skipped["MS-CLAP-Score"]


@pytest.mark.parametrize(
    ("content", "told"),
    [("id,caption\na,b\n", "expected also"), ("name,caption\na,\n", "no caption of"), ("", "None")],
)
def test_captions_without_their_columns_are_refused(tmp_path, content, told):
    (tmp_path / "captions.csv").write_text(content)
    with pytest.raises(ValueError, match=told):
        av_benchmark_text.read_captions(tmp_path / "captions.csv")


def test_captions_are_an_option_of_the_command():
    args = command.parser().parse_args(
        ["--protocol=av-benchmark", "--reference=a", "--out=b", "--captions=c.csv"]
    )
    assert str(args.captions) == "c.csv"


def test_what_the_networks_hear(tmp_path):
    """LAION-CLAP 8 s less the mean and silence; MS-CLAP 7 s from the middle as they are."""
    rng = np.random.default_rng(0)
    wave = (0.3 + 0.1 * rng.standard_normal(9 * RATE)).astype(np.float32)
    path = tmp_path / "a.wav"
    audio_io.write_wav(path, wave, RATE)
    stored = audio_io.load(path, RATE)
    heard = av_benchmark_audio.HEARD
    got = heard["clap_laion_audio"].read(path, 8.0, 0.0, as_torchaudio=True)
    want = hann_resample.resample(stored - stored.mean(dtype=np.float64), RATE, 48000)
    np.testing.assert_allclose(got[: 8 * 48000], want[: 8 * 48000], atol=1e-6)
    assert not got[8 * 48000 :].any() and len(got) == laion_clap.LENGTH
    got = heard["clap_ms_audio"].read(path, 8.0, 0.0, as_torchaudio=True)
    np.testing.assert_allclose(got.mean(), 0.3, atol=0.01)
    whole = hann_resample.resample(stored, RATE, 44100)  # 9 s: `seconds` does not count
    np.testing.assert_array_equal(got, whole[44100 : 44100 + ms_clap.LENGTH])
    own = heard["clap_ms_audio"].read(path, 8.0, 0.0)
    assert np.abs(own - whole[22050 : 22050 + ms_clap.LENGTH]).std() < 0.02
