"""Features are computed once for every content and kept whole."""

import numpy as np
import pytest

from foley_jax.evaluation import feature_store
from foley_jax.media import audio as audio_io

RATE, LENGTH = 16000, 800


class Counter:
    """An extraction that counts the batches it computes."""

    def __init__(self, **options):
        self.batches = []
        self.extraction = feature_store.Extraction(
            "mean", feature_store.key_of(net=1), self.read, self.compute, batch_size=2, **options
        )

    def read(self, path):
        return audio_io.load(path, RATE)[:LENGTH]

    def compute(self, audio_BL):
        self.batches.append(len(audio_BL))
        mean = np.abs(audio_BL).mean(axis=1)
        together = np.full_like(mean, mean.mean())
        return {"mean": together if self.extraction.by_batch else mean, "wave": audio_BL[:, :3]}


@pytest.fixture
def paths(tmp_path):
    found = {}
    for name, level in {"a": 0.5, "b": 0.25, "c": 0.0}.items():
        found[name] = tmp_path / f"{name}.wav"
        audio_io.write_wav(found[name], np.full(LENGTH, level, np.float32), RATE)
    return found


def _means(perceived):
    return {name: round(float(f["mean"]), 3) for name, f in perceived.items.items()}


def test_every_content_is_computed_once(paths, tmp_path):
    store, net = feature_store.FeatureStore(tmp_path / "store"), Counter()
    first = store.extract(paths, net.extraction, "x")
    assert net.batches == [2, 2]  # the last one filled up
    assert _means(first) == {"a": 0.5, "b": 0.25, "c": 0.0} and first.silent == ("c",)
    renamed = paths["a"].rename(tmp_path / "z.wav")
    again = store.extract({"z": renamed, "b": paths["b"]}, net.extraction, "x")
    assert net.batches == [2, 2] and _means(again) == {"z": 0.5, "b": 0.25}
    np.testing.assert_array_equal(again.items["z"]["wave"], first.items["a"]["wave"])


def test_changed_content_other_key_and_broken_files_are_computed(paths, tmp_path):
    store, net = feature_store.FeatureStore(tmp_path / "store"), Counter()
    store.extract(paths, net.extraction, "x")
    audio_io.write_wav(paths["b"], np.full(LENGTH, 0.125, np.float32), RATE)
    assert _means(store.extract(paths, net.extraction, "x"))["b"] == 0.125
    assert net.batches == [2, 2, 2]
    for kept in (tmp_path / "store").rglob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:100])
    assert _means(store.extract(paths, net.extraction, "x"))["a"] == 0.5
    assert len(net.batches) == 5
    assert feature_store.key_of(net=1) != feature_store.key_of(net=2)


def test_a_broken_file_is_named_and_the_rest_goes_on(paths, tmp_path):
    paths["b"].write_bytes(b"no sound")
    paths["gone"] = tmp_path / "gone.wav"
    net = Counter()
    found = feature_store.FeatureStore(tmp_path / "s").extract(paths, net.extraction, "x")
    assert list(found.items) == ["a", "c"] and set(found.unreadable) == {"b", "gone"}


def test_batch_dependent_features_are_kept_by_batch(paths, tmp_path):
    store, net = feature_store.FeatureStore(tmp_path / "store"), Counter(by_batch=True)
    alone = store.extract(paths, net.extraction, "x")
    assert net.batches == [2]  # nothing is added to a last batch, and one item is none
    assert _means(alone) == {"a": 0.375, "b": 0.375} and "batch of one" in alone.unreadable["c"]
    paths["d"] = paths["c"]
    first = store.extract(paths, net.extraction, "x")
    assert _means(first) == {"a": 0.375, "b": 0.375, "c": 0.0, "d": 0.0}
    assert net.batches == [2, 2]
    assert _means(store.extract(paths, net.extraction, "x")) == _means(first)
    assert net.batches == [2, 2]
    turned = {name: paths[name] for name in ("a", "c", "b", "d")}
    means = _means(store.extract(turned, net.extraction, "x"))
    assert means == {"a": 0.25, "c": 0.25, "b": 0.125, "d": 0.125}
    assert net.batches == [2, 2, 2, 2]


def test_without_a_folder_nothing_is_kept(paths):
    net = Counter()
    for _ in range(2):
        feature_store.FeatureStore(None).extract(paths, net.extraction, "x")
    assert net.batches == [2, 2, 2, 2]
