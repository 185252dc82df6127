"""The metrics of av-benchmark on features by name, under its keys.

An item is cache file -> part -> array (`av_benchmark_cache.FILES`). float64, on the host.

What av-benchmark does, and what the presets do with it:
- FD-VGG lays all windows of 0.96 s of all audio end to end; FD-PANN takes one row audio. Both,
  and ISC, compare the whole generated set with the whole reference, paired or not. FD-PASST
  compares only audio clips that have a partner. 'official' does the same; 'default' compares
  FD-PASST too with the whole reference. Without missing audio clips they agree.
- KL is KL(reference || generated) of the softmaxes, in nats, although PANNs' and PaSST's classes do
  not exclude each other. With several samples of an audio clip its code keeps the KL of the last
  one (its command line allows one only); here several samples are several runs.
- ISC shuffles the audio, sorted by stem, with NumPy's seed 2020 and cuts them into ten splits.
  Less than ten audio clips make its splits empty and the score nan; here it then has no figure.
- Scores from PaSST, ImageBind and CLAP pair names after `official_name`, KL-PANNS does not.
  'official' does the same; 'default' never changes a name.
- Statistics are float32 in places there (the mean of features, softmaxes of KL, cosines): FD
  differs by about 3e-7 of itself. With fewer audio clips than features its root of a singular
  matrix may come out imaginary; its figure then is -1. Neither preset has that
  (`distances.frechet`).
Source: av-benchmark av_bench/evaluate.py, utils.py, metrics/.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Literal

import numpy as np

from foley_jax.evaluation.protocols import av_benchmark_cache, class_figures, feature_rules
from foley_jax.evaluation.statistics import class_scores, distances, pairs

Preset = Literal["default", "official"]
PRESETS = ("default", "official")
Items = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]

ISC_SPLITS = 10
_COSINE_EPS = 1e-8  # of torch.cosine_similarity
# (length, where the video's name is in it) of VGGSound's names as several tools write them
_LONG_NAMES = {30: slice(10, 28), 20: slice(0, 18), 21: slice(1, 19)}


@dataclasses.dataclass(frozen=True)
class Metric:
    """One line of av-benchmark's output.

    Attributes:
      key: its key; of "inception" the keys are KEY-mean and KEY-std.
      own, part: cache file of the generated audio clips, and the part of an item.
      true: cache file of the reference; "" needs none.
      by_official_name: whether av-benchmark pairs it after `official_name`.
    """

    key: str
    kind: Literal["distance", "divergence", "inception", "cosine", "desync"]
    own: str
    part: str
    true: str
    by_official_name: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        is_pair = self.kind == "inception"
        return (f"{self.key}-mean", f"{self.key}-std") if is_pair else (self.key,)

    @property
    def contrast(self) -> pairs.Contrast:
        """Returns the contrast of KL, DeSync and cosines, which judge pairs.

        A smaller KL or DeSync is better, a larger cosine.
        """
        return pairs.Contrast(self.key, ascending=self.kind == "cosine")


_PLAIN = av_benchmark_cache.FEATURES
METRICS = (
    Metric("FD-VGG", "distance", "vggish_features", _PLAIN, "vggish_features"),
    Metric("FD-PANN", "distance", "pann_features", "2048", "pann_features"),
    Metric("FD-PASST", "distance", "passt_features_embed", _PLAIN, "passt_features_embed", True),
    Metric("KL-PANNS-softmax", "divergence", "pann_features", "logits", "pann_features"),
    Metric("KL-PASST-softmax", "divergence", "passt_logits", "logits", "passt_logits", True),
    Metric("ISC-PANNS", "inception", "pann_features", "logits", ""),
    Metric("ISC-PASST", "inception", "passt_logits", "logits", ""),
    Metric("IB-Score", "cosine", "imagebind_audio", _PLAIN, "imagebind_video", True),
    Metric("LAION-CLAP-Score", "cosine", "clap_laion_audio", _PLAIN, "clap_laion_text", True),
    Metric("MS-CLAP-Score", "cosine", "clap_ms_audio", _PLAIN, "clap_ms_text", True),
)
# the judgement of Synchformer's last layers, which no cache holds (`desync_figures`)
DESYNC = Metric("DeSync", "desync", "synchformer_audio", _PLAIN, "synchformer_video", True)
CONTRASTS = tuple(
    m.contrast for m in (*METRICS, DESYNC) if m.kind in ("divergence", "cosine", "desync")
)


class TooFewError(ValueError):
    """There are not enough audio clips for a metric."""


def official_name(name: str) -> str:
    """The name under which av-benchmark looks for a generated audio clip's partner.

    By its length alone: of 30 characters the 11th to 28th ("000000014_zxpo56cpUBU_000007-0"), of 20
    the first 18 ("zxpo56cpUBU_000007-0"), of 21 the second to 19th ("Y---g-f_I2yQ_000001_0"); any
    other stays. So a name of these lengths that is none of VGGSound's loses its partner.
    """
    return name[_LONG_NAMES[len(name)]] if len(name) in _LONG_NAMES else name


def figures(
    heard: Items, reference: Items, preset: Preset = "default"
) -> tuple[dict[str, float], dict[str, str]]:
    """All metrics for which every item has the features.

    Returns:
      Figures under av-benchmark's keys, KL and cosines with the mean of wrong pairs
      (`shuffled_KEY`) and a 95 % interval over audio (`KEY_low`, `KEY_high`); and key -> why, of
      metrics that so few audio clips do not give. Metrics without features are in neither.
    Raises:
      ValueError: an unknown preset, or features of unlike shapes.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}, expected {' or '.join(map(repr, PRESETS))}")
    compute = {
        "distance": _distance,
        "divergence": _divergence,
        "inception": _inception,
        "cosine": _cosine,
    }
    found: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for metric in METRICS:
        if not is_there(metric, heard, reference):
            continue
        try:
            found |= compute[metric.kind](metric, heard, reference, preset)
        except TooFewError as error:
            skipped |= dict.fromkeys(metric.keys, f"skipped: {error}")
    return found, skipped


def distances_of(heard: Items, reference: Items) -> dict[str, float]:
    """The Frechet distances alone, of sets whose items need no partners."""
    found = {}
    for metric in METRICS:
        if metric.kind == "distance" and is_there(metric, heard, reference):
            with contextlib.suppress(TooFewError):
                found |= _distance(metric, heard, reference, "default")
    return found


def row(heard: Mapping, reference: Mapping) -> dict[str, float]:
    """KL and cosine of one item and its partner."""
    one, other = {"": heard}, {"": reference}
    of_pairs = {"divergence": class_scores.softmax_kl_of_pairs, "cosine": cosines}
    return {
        metric.key: float(of_pairs[metric.kind](*_rows_of_pairs(metric, one, other))[0])
        for metric in METRICS
        if metric.kind in of_pairs and is_there(metric, one, other)
    }


def cosines(one_ND: np.ndarray, other_ND: np.ndarray) -> np.ndarray:
    """Cosine of every pair of rows, float64 [N]; a row of zeros gives 0.

    Raises:
      ValueError: unequal shapes.
    Source: torch.cosine_similarity.
    """
    one, other = np.asarray(one_ND, np.float64), np.asarray(other_ND, np.float64)
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(f"features of shapes {one.shape} and {other.shape}, expected equal [N, D]")
    lengths = [np.maximum(np.linalg.norm(rows, axis=1), _COSINE_EPS) for rows in (one, other)]
    return np.sum(one * other, axis=1) / (lengths[0] * lengths[1])


def is_there(metric: Metric, heard: Items, reference: Items) -> bool:
    """Whether all items have what a metric needs."""
    return all(metric.own in item for item in heard.values()) and (
        not metric.true or all(metric.true in item for item in reference.values())
    )


def with_partners(metric: Metric, heard: Items, reference: Items, preset: Preset) -> Items:
    """The items that have a partner in the reference, under its name, in the order of names."""
    rename = official_name if preset == "official" and metric.by_official_name else str
    found = {rename(n): heard[n] for n in sorted(heard) if rename(n) in reference}
    if not found:
        raise TooFewError("no generated audio has a partner by name")
    return found


def _rows(metric: Metric, items: Items) -> np.ndarray:
    """All rows of a set in the order of the names, float64 [N, D]."""
    return feature_rules.stacked(dict(sorted(items.items())), metric.own, metric.part)


def _rows_of_pairs(
    metric: Metric, partnered: Items, reference: Items
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of items and of their partners, float64 [N, D] each."""
    partners = {name: reference[name] for name in partnered}
    return (
        feature_rules.stacked(partnered, metric.own, metric.part),
        feature_rules.stacked(partners, metric.true, metric.part),
    )


def _distance(metric: Metric, heard: Items, reference: Items, preset: Preset) -> dict[str, float]:
    if preset == "official" and metric.by_official_name:  # it pairs what need not be paired
        heard = with_partners(metric, heard, reference, preset)
        reference = {name: reference[name] for name in heard}
    rows = [_rows(metric, items) for items in (heard, reference)]
    if min(map(len, rows)) < distances.LEAST_ITEMS:
        raise TooFewError(f"{min(map(len, rows))} rows, a covariance needs {distances.LEAST_ITEMS}")
    return {metric.key: feature_rules.frechet(*rows)}


def _divergence(metric: Metric, heard: Items, reference: Items, preset: Preset) -> dict[str, float]:
    partnered = with_partners(metric, heard, reference, preset)
    of_pairs = class_scores.softmax_kl_of_pairs
    return class_figures.kl_figures(metric.contrast, of_pairs, partnered, reference, metric.own)


def _inception(metric: Metric, heard: Items, reference: Items, preset: Preset) -> dict[str, float]:
    del reference, preset
    if len(heard) < ISC_SPLITS:
        raise TooFewError(f"{len(heard)} audio clips, {ISC_SPLITS} splits need as many")
    score = class_scores.inception_score(_rows(metric, heard), num_splits=ISC_SPLITS)
    return dict(zip(metric.keys, (score.mean, score.std), strict=True))


def _cosine(metric: Metric, heard: Items, reference: Items, preset: Preset) -> dict[str, float]:
    partnered = with_partners(metric, heard, reference, preset)
    own_ND, true_ND = _rows_of_pairs(metric, partnered, reference)
    wrong = [
        cosines(own_ND, np.roll(true_ND, -shift, axis=0)).mean()
        for shift in pairs.rotations(len(partnered))
    ]
    return pairs.of_means(metric.contrast, cosines(own_ND, true_ND), wrong)
