"""Networks by name: what a folder of weights allows, what is skipped, what a loaded one gives."""

import dataclasses
import json

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import laion_clap, melception, ms_clap, registry
from foley_jax.interop import fill
from foley_jax.interop import registry as checkpoints
from foley_jax.runtime import network as network_lib


def _folder(path, *names):
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).write_bytes(b"")
    return path


@pytest.mark.parametrize("name", registry.NETWORKS)
def test_entries_agree_with_the_converter(name):
    entry = registry.NETWORKS[name]
    kind = checkpoints.kinds()[entry.kind]
    assert entry.files == kind.file_names and entry.files
    assert set(entry.model) <= set(kind.model)


def test_every_metric_has_one_file_of_weights():
    """It may hold several networks, for instance one of audio and one of images."""
    files = {}
    for entry in registry.NETWORKS.values():
        for metric in entry.metrics:
            files.setdefault(metric, set()).add(entry.files)
    assert all(len(found) == 1 for found in files.values())
    assert all("/" in metric for metric in files)  # its protocol stands before it


SHAPES = {
    "vggish": {"embedding": (2, 2, 128)},
    "panns_16k": {"embedding": (2, 2048), "logits": (2, 527)},
    "panns_32k": {"embedding": (2, 2048), "logits": (2, 527)},
    "melception": {
        **{str(width): (2, width) for width in (64, 192, 768, 2048)},
        "logits": (2, 309),
        "logits_unbiased": (2, 309),
    },
    "i3d": {"logits": (2, 400)},
    "audioclip": {"embedding": (2, 1024)},
    "laion_clap": {"embedding": (2, 512)},
    "laion_clap_text": {"embedding": (2, 512)},
    "ms_clap": {"embedding": (2, 1024)},
    "ms_clap_text": {"embedding": (2, 1024)},
    "yamnet": {"embedding": (2, 3, 1024), "logits": (2, 521)},
    "passt": {"embedding": (2, 768), "logits": (2, 527)},
    "synchformer_audio": {"embedding": (2, 5, 6, 768)},
    "synchformer_video": {"embedding": (2, 2, 8, 768)},
    "synchformer_joint": {"logits": (2, 21)},
    "imagebind_audio": {"embedding": (2, 1024)},
    "imagebind_video": {"embedding": (2, 1024)},
}
LENGTHS = {"laion_clap": laion_clap.LENGTH, "ms_clap": ms_clap.LENGTH}  # others take any


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_features_have_names_and_shapes(name):
    """Traced, not computed: two seconds of audio, or 16 small frames."""
    entry = registry.NETWORKS[name]
    kind = checkpoints.kinds()[entry.kind]
    fields = {**kind.model, **entry.model}
    if "num_layers" in fields:
        fields["num_layers"] = 1  # one block is traced as all others are
    model = network_lib.shapes(lambda keys: kind.build(fields, rngs=keys))
    shape = lambda *sizes: jax.ShapeDtypeStruct((2, *sizes), jnp.float32)  # noqa: E731
    if name == "synchformer_video":
        batch = jax.ShapeDtypeStruct((2, 24, 224, 224, 3), jnp.uint8)
    elif entry.reads == "features":
        batch = shape(14, 8, 768), shape(14, 6, 768)
    elif entry.reads == "mels":
        batch = shape(3, 128, 204)
    elif entry.reads == "crops":
        batch = jax.ShapeDtypeStruct((2, 9, 2, 224, 224, 3), jnp.uint8)
    elif entry.reads == "video":
        batch = jax.ShapeDtypeStruct((2, 16, 64, 64, 3), jnp.uint8)
    elif entry.reads == "tokens":
        batch = jax.ShapeDtypeStruct((2, 2, 77), jnp.int32)
    else:
        batch = jax.ShapeDtypeStruct((2, LENGTHS.get(name, 2 * entry.rate_hz)), jnp.float32)
    beside = tuple(jax.ShapeDtypeStruct((80, 2), jnp.float32) for _ in entry.beside)
    graphdef, state = nnx.split(model)
    for preset in entry.presets:
        got = jax.eval_shape(
            lambda state, x, beside, preset=preset: entry.features(
                nnx.merge(graphdef, state), x, beside, preset
            ),
            nnx.to_pure_dict(state),
            batch,
            beside,
        )
        shapes = {part: array.shape for part, array in got.items()}
        if (name, preset) == ("yamnet", "official"):  # it fills the rest up
            assert shapes.pop("embedding") == (2, 4, 1024)
        assert shapes.items() <= SHAPES[name].items() and shapes
        assert all(array.dtype == jnp.float32 for array in got.values())


def test_what_is_missing_is_skipped_by_name(tmp_path):
    folder = _folder(tmp_path, "i3d_pretrained_400.pt", "melception-21-05-10T09-28-40.pt")
    found = registry.find(folder)
    assert set(found.files) == {"i3d"}
    assert set(found.files) | set(found.missing) == set(registry.NETWORKS)
    skipped = registry.skipped(folder)
    assert not {"mm-diffusion/FVD", "mm-diffusion/KVD"} & set(skipped)
    assert skipped["mm-diffusion/FAD"] == f"skipped: no AudioCLIP-Full-Training.pt in {folder}"
    # the weights are there, the statistics are not
    assert skipped["specvqgan-melception/FID"] == (
        f"skipped: no {melception.STATISTICS_FILE} in {folder}"
    )
    assert all(isinstance(reason, str) for reason in skipped.values())  # no figure in its place
    _folder(tmp_path, melception.STATISTICS_FILE)
    assert "specvqgan-melception/FID" not in registry.skipped(folder)
    with pytest.raises(FileNotFoundError, match=r"no AudioCLIP.* needed for mm-diffusion/FAD"):
        registry.load("audioclip", folder, None)
    with pytest.raises(ValueError, match="unknown network 'clip'; known networks: vggish"):
        registry.load("clip", folder, None)
    with pytest.raises(FileNotFoundError, match="eval_classifier.ckpt"):
        registry.load("alignment", folder, None)


class _Small(nnx.Module):
    def __init__(self, *, rngs):
        self.layer = nnx.Linear(3, 2, rngs=rngs)

    def embed(self, x, preset):
        return self.layer(x) * (2.0 if preset == "official" else 1.0)


def test_loaded_networks_use_their_weights_files_and_preset(tmp_path, monkeypatch):
    model = filled.module(lambda keys: _Small(rngs=keys))
    asked = []

    def load_torch(kind, path, **fields):
        asked.append((kind, path, fields))
        return model

    def features(module, batch, beside, preset):
        return {"embedding": module.embed(batch, preset) + beside[0][None]}

    entry = dataclasses.replace(
        registry.NETWORKS["audioclip"],
        files=("other.pt", "small.pt"),
        model={"width": 2},
        features=features,
        beside=(("shift.txt", np.loadtxt),),
    )
    monkeypatch.setattr(registry, "NETWORKS", {"small": entry})
    _folder(tmp_path, "small.pt")
    np.savetxt(tmp_path / "shift.txt", np.array([1.0, -1.0]))
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    want = x @ np.asarray(model.layer.kernel[...]) + np.asarray(model.layer.bias[...])
    for preset, factor in (("default", 1.0), ("official", 2.0)):
        got = registry.load("small", tmp_path, load_torch, preset=preset)(x)
        assert isinstance(got["embedding"], np.ndarray)
        np.testing.assert_allclose(got["embedding"], factor * want + [1.0, -1.0], rtol=1e-5)
    assert asked == [("audioclip/audio", tmp_path / "small.pt", {"width": 2})] * 2
    with pytest.raises(ValueError, match="no preset 'paper'; it has default, official"):
        registry.load("small", tmp_path, load_torch, preset="paper")


def test_networks_without_features_say_so():
    with pytest.raises(ValueError, match="gives no features; its metric calls it itself"):
        registry.Extractor(registry.NETWORKS["alignment"], None, (), "default")


KEYS = {
    "vggish": "vggish",
    "melception": "melception",
    "fvd/i3d": "i3d",
    "audioclip/audio": "audioclip_audio",
}


@pytest.mark.parametrize("kind", KEYS)
def test_published_files_are_recognised_by_their_keys(kind):
    keys = json.loads((network_goldens.GOLDENS / f"{KEYS[kind]}_keys.json").read_text())
    prefix = "module.audio." if kind == "audioclip/audio" else "module."
    keys = [prefix + key for key in keys]
    known = checkpoints.kinds().items()
    fitting = {k for k, d in known if d.signature and fill.has_signature(d, keys)}
    assert fitting == {kind}


def test_cnn14_without_a_named_kind_is_the_encoder_that_training_starts_from():
    """Its file serves both; scoring names `panns/cnn14_16k` or `panns/cnn14_32k`."""
    keys = json.loads((network_goldens.GOLDENS / "panns_cnn14_32k_keys.json").read_text())
    known = checkpoints.kinds().items()
    fitting = {k for k, d in known if d.signature and fill.has_signature(d, keys)}
    assert fitting == {"panns/cnn14"}
