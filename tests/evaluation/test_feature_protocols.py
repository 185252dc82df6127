"""Protocols on features: what they read, pair, pool, skip; the networks are cheap stand-ins."""

import numpy as np
import pytest

from foley_jax.evaluation import feature_store
from foley_jax.evaluation.networks import registry
from foley_jax.evaluation.protocols import (
    audioldm_protocol,
    feature_rules,
    mm_diffusion_protocol,
    protocol,
    specvqgan_protocol,
    yamnet_protocol,
)
from foley_jax.evaluation.statistics import distances, remarks
from foley_jax.media import audio as audio_io
from foley_jax.media import video as video_io

RATE = 16000
WIDTHS = {"embedding": 6, "logits": 5, "logits_unbiased": 5, "2048": 6}


class StandIn:
    """Random projections of an audio clip's spectrum, or of a video's mean image."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def __call__(self, batch):
        self.log.append((self.name, batch.shape, batch.dtype))
        if batch.ndim == 2:
            spectrum = np.abs(np.fft.rfft(batch, axis=1))[:, :400]
            x = np.log(spectrum + 1.0).astype(np.float64)
        else:
            x = batch.reshape(len(batch), -1)[:, ::97].astype(np.float64) / 255
        made = {}
        for feature, width in WIDTHS.items():
            rng = np.random.default_rng(len(feature))
            made[feature] = (x @ rng.standard_normal((x.shape[1], width)) / 10).astype(np.float32)
        if self.name in ("vggish", "yamnet"):  # two windows
            made["embedding"] = np.stack([made["embedding"], made["embedding"] + 1], axis=1)
        return made


@pytest.fixture
def log(monkeypatch):
    """(network, shape, dtype) of every batch computed."""
    found = []
    monkeypatch.setattr(registry, "load", lambda name, *a, **k: StandIn(name, found))
    return found


def _networks(tmp_path, *names, preset="default"):
    folder = tmp_path / "weights"
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        entry = registry.NETWORKS[name]
        for file in (*entry.files, *(file for file, _ in entry.beside)):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(name.encode())
    store = feature_store.FeatureStore(tmp_path / "store")
    return feature_rules.Networks(folder, None, store, preset=preset)


def _audio(folder, seed, count=8, like=None, seconds=1.0):
    """Tones of random pitch; with `like`, those of that seed with some noise."""
    folder.mkdir()
    t = np.arange(round(seconds * RATE)) / RATE
    pitch, rng = np.random.default_rng(seed if like is None else like), np.random.default_rng(seed)
    for i in range(count):
        wave = 0.3 * np.sin(2 * np.pi * pitch.uniform(100, 3000) * t)
        if like is not None:
            wave = wave + 0.05 * rng.standard_normal(len(t))
        audio_io.write_wav(folder / f"s{i}.wav", wave.astype(np.float32), RATE)
    return folder


def _check_truth_is_best(result, key, *, tolerance):
    true, ours = (result.figures[name] for name in (protocol.REFERENCE, "ours"))
    assert abs(true[key]) < tolerance < ours[key] < ours[f"shuffled_{key}"]
    assert true["clips"] == ours["clips"] == 8
    floor = result.figures[protocol.HALVES]
    assert floor["clips"] == 4
    return true, ours, floor


def test_specvqgan_pools_samples_and_pairs_each_with_its_video(tmp_path, log):
    rules = specvqgan_protocol.SpecVqganMelception(_networks(tmp_path, "melception"), seconds=0.5)
    reference = _audio(tmp_path / "true", 0)
    one, two = (_audio(tmp_path / str(seed), seed, like=0) for seed in (1, 2))
    result = protocol.evaluate(rules, {"ours": [one]}, reference)
    true, ours, floor = _check_truth_is_best(result, "MKL", tolerance=1e-4)
    assert true["FID"] < 1e-6 < ours["FID"] and true["KID"] <= 0 and floor["FID"] > 0
    assert np.isnan(ours["IS"]) and "8 audio clips; 10 splits" in remarks.remark_of(ours["IS"])
    assert ours["MKL_low"] < ours["MKL"] < ours["MKL_high"]
    assert result.skipped == {}
    assert {shape for _, shape, _ in log} == {(8, round(22050 * 0.5))}
    rows = {r["name"]: r["MKL"] for r in result.samples if r["system"] == "ours"}
    assert np.mean(list(rows.values())) == pytest.approx(ours["MKL"])
    pooled = protocol.evaluate(rules, {"ours": [one, two]}, reference).figures["ours"]
    assert pooled["clips"] == 16 and pooled["seeds"] == 2 and 1.0 <= pooled["IS"] <= 5.0
    alone = protocol.evaluate(rules, {"ours": [two]}, reference).figures["ours"]
    assert pooled["MKL"] == pytest.approx((ours["MKL"] + alone["MKL"]) / 2)
    assert len(log) == 3  # 24 audio clips in batches of 8, each once


def test_audioldm_reads_whole_audio_without_mean_and_pads_short_ones(tmp_path, log):
    rules = audioldm_protocol.AudioLdmEval(_networks(tmp_path, "panns_16k", "vggish"))
    reference = _audio(tmp_path / "true", 0)
    ours = _audio(tmp_path / "ours", 1, like=0, seconds=3.0)
    result = protocol.evaluate(rules, {"ours": [ours]}, reference)
    true, ours, _ = _check_truth_is_best(result, "KL", tolerance=1e-4)
    assert true["FD"] < 1e-6 < ours["FD"] and true["FAD"] < 1e-6 < ours["FAD"]
    # of single classes: not a divergence, it may be negative
    assert ours["KL_sigmoid"] != 0 and abs(true["KL_sigmoid"]) < 1e-4
    assert set(rules.settings()["networks"]) == {"panns_16k", "vggish"}
    assert {shape for _, shape, _ in log} == {(1, 32000), (1, 48000)}
    read = audioldm_protocol.reader(RATE, None)
    audio_io.write_wav(tmp_path / "dc.wav", np.full(100, 0.5, np.float32), RATE)
    np.testing.assert_allclose(read(tmp_path / "dc.wav"), np.zeros(32000), atol=1e-6)


def test_yamnet_judges_pairs_by_classes_and_embeddings(tmp_path, log):
    rules = yamnet_protocol.YamnetProtocol(_networks(tmp_path, "yamnet"))
    reference = _audio(tmp_path / "true", 0)
    ours = _audio(tmp_path / "ours", 1, like=0, seconds=2.0)
    _audio(tmp_path / "short", 1, like=0, seconds=0.3)
    (tmp_path / "short/s0.wav").write_bytes(b"no audio")
    systems = {"ours": [ours], "short": [tmp_path / "short"]}
    result = protocol.evaluate(rules, systems, reference)
    true, ours, floor = _check_truth_is_best(result, "KL", tolerance=1e-9)
    assert true["cosine"] == pytest.approx(1) and true["FAD"] == 0 < floor["FAD"]
    assert ours["cosine_low"] < ours["cosine"] < ours["cosine_high"] < 1
    assert ours["shuffled_cosine"] < ours["cosine"]
    # whole windows of 0.96 s every 0.48 s; half a second of silence behind 0.3 s
    assert {shape for _, shape, _ in log} == {(1, 15600), (1, 15600 + 2 * 7680)}
    assert result.figures["short"]["clips"] == 7
    rows = [r for r in result.samples if r["system"] == "ours"]
    for key in ("KL", "cosine"):
        assert np.mean([row[key] for row in rows]) == pytest.approx(ours[key])
    official = yamnet_protocol.YamnetProtocol(_networks(tmp_path, "yamnet", preset="official"))
    protocol.evaluate(official, {}, tmp_path / "ours")
    assert log[-1][1] == (1, 32000)  # the network fills the rest up


def test_what_lacks_weights_is_skipped_by_name(tmp_path, log):
    rules = audioldm_protocol.AudioLdmEval(_networks(tmp_path, "vggish"))
    result = protocol.evaluate(rules, {}, _audio(tmp_path / "true", 0))
    figures = result.figures[protocol.REFERENCE]
    assert "FAD" in figures and not {"FD", "KL", "KL_sigmoid", "IS"} & set(figures)
    assert set(result.skipped) == {"FD", "KL", "KL_sigmoid", "IS"}
    assert all("no Cnn14_16k" in why for why in result.skipped.values())
    with pytest.raises(ValueError, match="no network .* melception: no melception-21"):
        specvqgan_protocol.SpecVqganMelception(_networks(tmp_path))


def _videos(folder, seed, seconds, brightness=128):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i, length in enumerate(seconds):
        images = rng.integers(0, brightness, (round(length * 10), 64, 64, 3)).astype(np.uint8)
        waveform = 0.1 * rng.standard_normal(round(length * RATE)).astype(np.float32)
        video_io.write_video(
            folder / f"v{seed}_{i}.mp4", images, 10.0, audio=waveform, sample_rate_hz=RATE
        )
    return folder


def test_mm_diffusion_compares_sets_of_whole_clips(tmp_path, log):
    rules = mm_diffusion_protocol.MmDiffusion(
        _networks(tmp_path, "i3d", "audioclip"), split="training"
    )
    reference = _videos(tmp_path / "true", 0, (1.6, 3.2, 5.0, 1.0))
    ours = _videos(tmp_path / "ours", 1, (1.6,) * 4, brightness=200)
    result = protocol.evaluate(rules, {"ours": [ours]}, reference)
    true, found = (result.figures[name] for name in (protocol.REFERENCE, "ours"))
    assert true["clips"] == 1 + 2 + 3 and found["clips"] == 4
    assert true["FVD"] < 1e-6 < found["FVD"] and true["FAD"] < 1e-2 < found["FAD"]
    assert any("v0_3: " in line or "v0_3)" in line for line in result.folder_warnings)  # too short
    shapes = {(name, shape) for name, shape, _ in log}
    assert ("i3d", (2, 16, 64, 64, 3)) in shapes and ("audioclip", (2, 70560)) in shapes
    assert rules.settings()["reference_split"] == "training"
    embedding = [
        item["audioclip"]["embedding"]
        for item in rules.extract_features(
            {p.stem: p for p in ours.glob("*.mp4")}, "x"
        ).items.values()
    ]
    true_items = rules.extract_features(
        {p.stem: p for p in sorted(reference.glob("*.mp4"))[:3]}, "x"
    ).items
    others = np.concatenate([item["audioclip"]["embedding"] for item in true_items.values()])
    by_hand = distances.frechet_distance(np.concatenate(embedding), others)
    assert found["FAD"] == pytest.approx(1e4 * by_hand)


def test_mm_diffusion_official_takes_first_clips_in_batches(tmp_path, log):
    rules = mm_diffusion_protocol.MmDiffusion(
        _networks(tmp_path, "i3d", "audioclip", preset="official"), split="training"
    )
    reference = _videos(tmp_path / "true", 0, (1.6, 3.2, 1.6))
    result = protocol.evaluate(rules, {}, reference)
    assert result.figures[protocol.REFERENCE]["clips"] == 3
    assert [shape for name, shape, _ in log if name == "audioclip"] == [(3, 70560)]
    assert rules.settings()["networks"]["audioclip"]["preset"] == "official"


RULES = {
    "specvqgan": (lambda n: specvqgan_protocol.SpecVqganMelception(n, seconds=0.5), ["melception"]),
    "audioldm": (audioldm_protocol.AudioLdmEval, ["panns_16k", "vggish"]),
}


@pytest.mark.parametrize("kind", RULES)
def test_one_audio_has_pairs_but_neither_distances_nor_intervals(tmp_path, log, kind):
    make, names = RULES[kind]
    rules = make(_networks(tmp_path, *names))
    reference, ours = _audio(tmp_path / "true", 0, 1), _audio(tmp_path / "ours", 1, 1, like=0)
    result = protocol.evaluate(rules, {"ours": [ours]}, reference)
    found = result.figures["ours"]
    absent = {k: remarks.remark_of(v) for k, v in found.items() if remarks.is_absent(v)}
    for contrast in rules.contrasts:
        assert np.isfinite(found[contrast.key])
        assert absent[contrast.low] == absent[contrast.high] == "1 clip; a 95 % interval needs 4"
        assert absent[contrast.shuffled] == "1 clip; wrong pairs need 2"
    assert absent["IS"] == "1 audio clip; 10 splits need as many"
    one_row = (
        {"FID", "KID"} if kind == "specvqgan" else {"FD"}
    )  # VGGish has two windows an audio clip
    assert {k for k in absent if "a distance needs 2" in absent[k]} == one_row
    assert protocol.HALVES not in result.figures


def test_distances_of_few_items_say_so_and_those_below_zero(tmp_path, log):
    rules = specvqgan_protocol.SpecVqganMelception(_networks(tmp_path, "melception"), seconds=0.5)
    figures = {
        count: protocol.evaluate(rules, {}, _audio(tmp_path / str(count), 0, count)).figures
        for count in (5, 8)
    }
    few, enough = (figures[count][protocol.REFERENCE] for count in (5, 8))
    assert few["FID"] == enough["FID"] == 0.0
    said = "is of few items: 5 in 6 dimensions; compare only sets of as many"
    assert remarks.remark_of(few["FID"]) == said and not remarks.remark_of(enough["FID"])
    assert enough["KID"] < 0 and "unbiased" in remarks.remark_of(enough["KID"])


class _Broken(StandIn):
    """Gives nan for one audio clip, or fails."""

    def __call__(self, batch):
        if self.name == "vggish":
            raise KeyError("layer.7")
        made = super().__call__(batch)
        made["embedding"][np.abs(batch).max(axis=1) > 0.9] = np.nan
        return made


def test_a_network_that_fails_and_an_item_without_features_stop_nothing(tmp_path, log, monkeypatch):
    monkeypatch.setattr(registry, "load", lambda name, *a, **k: _Broken(name, log))
    rules = audioldm_protocol.AudioLdmEval(_networks(tmp_path, "panns_16k", "vggish"))
    reference, ours = _audio(tmp_path / "true", 0, 5), _audio(tmp_path / "ours", 1, 5, like=0)
    loud = np.sin(np.arange(RATE)).astype(np.float32)
    audio_io.write_wav(ours / "s3.wav", 0.99 * loud, RATE)
    for _ in range(2):  # computed, and out of the store
        result = protocol.evaluate(rules, {"ours": [ours]}, reference)
        assert result.figures["ours"]["clips"] == 4 and result.figures["ours"]["FD"] > 0
        assert "FAD" not in result.figures["ours"]
        assert set(result.skipped) == {"FAD"}
        assert result.skipped["FAD"].startswith("skipped: unexpected KeyError: 'layer.7'")
        unreadable = result.systems["ours"][0]["items"]["unreadable"]
        assert "s3.wav: panns_16k gives values that are not finite (embedding)" in unreadable["s3"]
    monkeypatch.setattr(_Broken, "__call__", lambda *_: 1 / 0)
    rules = audioldm_protocol.AudioLdmEval(_networks(tmp_path / "new", "panns_16k", "vggish"))
    with pytest.raises(ValueError, match="panns_16k: unexpected ZeroDivisionError"):
        protocol.evaluate(rules, {}, reference)
