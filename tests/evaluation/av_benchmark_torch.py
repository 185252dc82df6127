"""av-benchmark's evaluation of two folders of caches, written anew in torch for tests.

Its formulas (evaluate.py, utils.py, metrics/), in float64 where it has float32.
"""

import numpy as np
from scipy import linalg
import torch
import torch.nn.functional as F


def load(folder, name):
    return torch.load(folder / f"{name}.pth", weights_only=True)


def fd(generated, reference):
    """metrics/fad.py `compute_fd`."""
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in map(_numpy, (generated, reference))]
    (mu1, cov1), (mu2, cov2) = moments
    root = linalg.sqrtm(cov1 @ cov2)
    assert np.isfinite(root).all()
    return (mu1 - mu2) @ (mu1 - mu2) + np.trace(cov1 + cov2) - 2 * np.trace(root.real)


def kl(generated, reference):
    """metrics/kl.py `kl_softmax`."""
    p, q = (F.log_softmax(x.double(), dim=1) for x in (generated, reference))
    return (F.kl_div(p, q, reduction="sum", log_target=True) / len(p)).item()


def isc(logits):
    """metrics/isc.py with ten splits and the shuffle 2020: mean and deviation."""
    order = np.random.RandomState(2020).permutation(len(logits))
    logits = logits.double()[torch.from_numpy(order)]
    p, log_p, n, found = logits.softmax(1), logits.log_softmax(1), len(logits), []
    for i in range(10):
        part = slice(i * n // 10, (i + 1) * n // 10)
        each = p[part] * (log_p[part] - p[part].mean(0, keepdim=True).log())
        found.append(each.sum(1).mean().exp().item())
    return np.mean(found), np.std(found)


def cosine(generated, reference):
    return torch.cosine_similarity(reference.double(), generated.double(), dim=-1).mean().item()


def paired(generated, reference):
    """utils.py `unroll_paired_dict`, of names that it does not change."""
    names = [name for name in generated if name in reference]
    return [torch.stack([d[name] for name in names]) for d in (generated, reference)]


def evaluate(generated, reference, *, with_pann=True, with_others=True):
    """evaluate.py: figures of two folders of caches.

    Args:
      with_pann: FD-PANN too (its root takes a minute at full width).
      with_others: what comes of PaSST, ImageBind and CLAP too.
    """
    panns = [load(folder, "pann_features") for folder in (generated, reference)]
    vggs = [load(folder, "vggish_features") for folder in (generated, reference)]
    found = {"FD-VGG": fd(*(torch.cat(list(d.values())) for d in vggs))}
    if with_pann:
        rows = [torch.stack([item["2048"] for item in d.values()]) for d in panns]
        found["FD-PANN"] = fd(*rows)
    logits = [{name: item["logits"] for name, item in d.items()} for d in panns]
    found["KL-PANNS-softmax"] = kl(*paired(*logits))
    found["ISC-PANNS-mean"], found["ISC-PANNS-std"] = isc(torch.stack(list(logits[0].values())))
    return found | (_others(generated, reference) if with_others else {})


def _others(generated, reference):
    def pairs(one, other):
        return paired(load(generated, one), load(reference, other))

    tags = pairs("passt_logits", "passt_logits")
    found = {"FD-PASST": fd(*pairs("passt_features_embed", "passt_features_embed"))}
    found["KL-PASST-softmax"] = kl(*tags)
    found["ISC-PASST-mean"], found["ISC-PASST-std"] = isc(tags[0])
    found["IB-Score"] = cosine(*pairs("imagebind_audio", "imagebind_video"))
    found["LAION-CLAP-Score"] = cosine(*pairs("clap_laion_audio", "clap_laion_text"))
    found["MS-CLAP-Score"] = cosine(*pairs("clap_ms_audio", "clap_ms_text"))
    return found


def _numpy(x):
    return x.double().numpy()
