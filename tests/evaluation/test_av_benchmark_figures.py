"""av-benchmark's figures against its formulas in torch."""

import av_benchmark_torch as official
import numpy as np
import pytest
import torch

from foley_jax.evaluation.protocols import av_benchmark_figures as figures

NAMES = [f"clip{i:02}" for i in range(40)]


def _items(seed, names=NAMES, shift=0.0, width=6):
    """Features of small width for all files; audio clips have one to four windows."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in names:
        item = {}
        for metric in figures.METRICS:
            for file in (metric.own, metric.true):
                windows = (rng.integers(1, 5),) if file == "vggish_features" else ()
                row = shift + rng.normal(size=(*windows, width))
                item.setdefault(file, {}).setdefault(metric.part, row.astype(np.float32))
        found[name] = item
    return found


def _torch(items, file, part):
    return {name: torch.from_numpy(item[file][part]) for name, item in items.items()}


def _official(metric, heard, reference):
    """One metric by the formulas of the tool."""
    own = _torch(heard, metric.own, metric.part)
    if metric.kind == "inception":
        return official.isc(torch.stack(list(own.values())))
    true = _torch(reference, metric.true, metric.part)
    if metric.own == "vggish_features":
        return (official.fd(torch.cat(list(own.values())), torch.cat(list(true.values()))),)
    compare = {"distance": official.fd, "divergence": official.kl, "cosine": official.cosine}
    return (compare[metric.kind](*official.paired(own, true)),)


@pytest.mark.parametrize("preset", figures.PRESETS)
@pytest.mark.parametrize("metric", figures.METRICS, ids=lambda metric: metric.key)
def test_figures_are_the_tools(metric, preset):
    heard, reference = _items(0, shift=0.3), _items(1)
    shuffled = dict(np.random.default_rng(2).permutation(list(heard.items())))
    found, skipped = figures.figures(shuffled, reference, preset)
    assert not skipped
    want = _official(metric, heard, reference)
    assert [found[key] for key in metric.keys] == pytest.approx(want, rel=1e-6, abs=1e-9)


def test_fewer_audio_than_features_are_the_tools_too():
    heard, reference = _items(0, NAMES[:12], width=30), _items(1, NAMES[:12], width=30)
    found, _ = figures.figures(heard, reference)
    for metric in figures.METRICS:
        if metric.kind == "distance":
            want = _official(metric, heard, reference)
            assert found[metric.key] == pytest.approx(want[0], rel=1e-6), metric.key


def test_missing_audio_count_as_the_presets_say():
    """For FD-PASST alone: 'official' leaves out what has no partner."""
    reference, heard = _items(1), _items(0, NAMES[:30])
    default, _ = figures.figures(heard, reference)
    published, _ = figures.figures(heard, reference, "official")
    assert {key for key in default if default[key] != published[key]} == {"FD-PASST"}
    passt = next(metric for metric in figures.METRICS if metric.key == "FD-PASST")
    assert published["FD-PASST"] == pytest.approx(*_official(passt, heard, reference), rel=1e-6)
    both = [_torch(items, passt.own, passt.part) for items in (heard, reference)]
    whole = official.fd(*(torch.stack(list(rows.values())) for rows in both))
    assert default["FD-PASST"] == pytest.approx(whole, rel=1e-6)


def test_pairs_themselves_are_perfect_and_wrong_ones_are_not():
    items = _items(0)
    found, _ = figures.figures(items, items)
    for key in ("FD-VGG", "FD-PANN", "FD-PASST", "KL-PANNS-softmax", "KL-PASST-softmax"):
        assert found[key] == pytest.approx(0.0, abs=1e-9)
    assert found["shuffled_KL-PANNS-softmax"] > 0.5 and found["shuffled_KL-PASST-softmax"] > 0.5
    assert found["KL-PANNS-softmax_low"] <= found["KL-PANNS-softmax"]
    seen = {n: {**item, "imagebind_video": item["imagebind_audio"]} for n, item in items.items()}
    found, _ = figures.figures(items, seen)
    assert found["IB-Score"] == pytest.approx(1.0) and abs(found["shuffled_IB-Score"]) < 0.2


def test_rows_are_the_terms_of_the_means():
    heard, reference = _items(0), _items(1)
    found, _ = figures.figures(heard, reference)
    rows = [figures.row(heard[name], reference[name]) for name in NAMES]
    keys = {m.key for m in figures.METRICS if m.kind in ("divergence", "cosine")}
    for key in keys:
        assert np.mean([row[key] for row in rows]) == pytest.approx(found[key], rel=1e-12)
    assert set(rows[0]) == keys


def test_features_that_some_audio_lacks_give_no_figure():
    heard, reference = _items(0), _items(1)
    del heard[NAMES[3]]["vggish_features"], reference[NAMES[5]]["imagebind_video"]
    found, skipped = figures.figures(heard, reference)
    assert not {"FD-VGG", "IB-Score"} & {*found, *skipped} and "FD-PANN" in found
    assert "IB-Score" not in figures.row(heard[NAMES[5]], reference[NAMES[5]])


def test_too_few_audio_are_skipped_by_name():
    nine = _items(0, NAMES[:9])
    found, skipped = figures.figures(nine, _items(1))
    assert skipped == {
        f"ISC-{net}-{what}": "skipped: 9 audio clips, 10 splits need as many"
        for net in ("PANNS", "PASST")
        for what in ("mean", "std")
    }
    assert "FD-PANN" in found
    found, skipped = figures.figures(_items(0, NAMES[:1]), _items(1))
    assert "covariance needs 2" in skipped["FD-PANN"] and found["KL-PANNS-softmax"] > 0
    assert np.isnan(found["shuffled_KL-PANNS-softmax"])


def test_halves_have_distances_alone():
    found = figures.distances_of(_items(0), _items(1, [f"other{i}" for i in range(9)]))
    assert set(found) == {"FD-VGG", "FD-PANN", "FD-PASST"} and min(found.values()) > 0
    # one audio clip has several windows for VGGish
    assert set(figures.distances_of(_items(0, NAMES[:1]), _items(1))) <= {"FD-VGG"}


@pytest.mark.parametrize(
    ("name", "partner"),
    [
        ("000000014_zxpo56cpUBU_000007-0", "zxpo56cpUBU_000007"),
        ("zxpo56cpUBU_000007-0", "zxpo56cpUBU_000007"),
        ("Y---g-f_I2yQ_000001_0", "---g-f_I2yQ_000001"),
        ("zxpo56cpUBU_000007", "zxpo56cpUBU_000007"),
        ("clip", "clip"),
    ],
)
def test_names_are_cut_as_the_tool_cuts_them(name, partner):
    assert figures.official_name(name) == partner


def test_cut_names_lose_their_partner_in_the_official_preset_alone():
    names = [f"a_name_of_20_char_{i:02}" for i in range(12)]
    heard, reference = _items(0, names), _items(1, names)
    assert len(names[0]) == 20 and not figures.figures(heard, reference)[1]
    found, skipped = figures.figures(heard, reference, "official")
    assert "KL-PANNS-softmax" in found and "KL-PASST-softmax" not in found
    assert set(skipped) == {
        "FD-PASST",
        "KL-PASST-softmax",
        "IB-Score",
        "LAION-CLAP-Score",
        "MS-CLAP-Score",
    }


def test_cosines_of_nothing_are_nothing():
    found = figures.cosines(np.array([[0, 0], [3, 4]]), np.array([[1, 2], [6, 8]]))
    assert found == pytest.approx([0.0, 1.0])
    with pytest.raises(ValueError, match="expected equal"):
        figures.cosines(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="preset is 'x'"):
        figures.figures({}, {}, "x")
