"""The alignment classifier and its training: small networks, every rule of the loss."""

import functools

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny

from configs import alignment as stage
from foley_jax.data import pairs
from foley_jax.diff_foley.models import alignment, latent_diffusion
from foley_jax.diff_foley.tasks import alignment as task_lib
from foley_jax.diff_foley.tasks import exhibits
from foley_jax.runtime import network as network_lib
from foley_jax.training import task as tasks


def _config(noised=True, **model):
    return ml_collections.ConfigDict(
        {
            "task": "alignment",
            "dtype": "float32",
            "audio": tiny.AUDIO,
            "video": tiny.VIDEO,
            "data": {
                "window_frames": 16,
                "num_rows": 4,
                "true_share": 0.5,
                "shifted_share": 0.25,
                "min_shift_s": 1.0,
            },
            "loss": {"noised": noised},
            "model": {
                "classifier": {**tiny.TRUNK, "locality_bias": True},
                "autoencoder": tiny.MEL_AUTOENCODER,
                "conditioner": tiny.CONDITIONER,
                "latent_scale": 0.7,
                **model,
            },
        }
    )


def _batch(pair=(0, 1, 2, 0)):
    rng, size = np.random.default_rng(0), len(pair)
    return {
        "audio_BPL": (rng.standard_normal((size, 1, 800)) * 3000).astype(np.int16),
        "mel_frame_BT": np.tile(np.arange(16, dtype=np.int32), (size, 1)),
        "cavp_BLD": rng.standard_normal((size, 4, 5)).astype(np.float16),
        "context_s_BL": np.tile(np.arange(4, dtype=np.float32) * 0.005, (size, 1)),
        "pair_B": np.int32(pair),
    }


@functools.cache
def _filled():
    """Task, definition, parameters, rest: no layer zero, as after some training."""
    task = tasks.resolve(_config())
    model = filled.module(task.build)
    graphdef, params, rest = nnx.split(model, task.trainable, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    return task, graphdef, params, {**rest, "latent_scale": jnp.float32(0.7)}


@functools.cache
def _loss_fn(train, noised):
    _, graphdef, _, rest = _filled()
    task = tasks.resolve(_config(noised))

    def loss(params, batch, seed):
        model = nnx.merge(graphdef, params, rest)
        return task.loss(model, batch, jax.random.key(seed), train=train)

    return loss


@functools.cache
def _jitted(train, noised):
    return filled.jit(_loss_fn(train, noised))


@pytest.mark.slow
def test_training_step_has_finite_gradients_for_the_trained_parts_only():
    _, _, params, rest = _filled()
    loss = _loss_fn(True, True)
    (value, metrics), grads = filled.jit(jax.value_and_grad(loss, has_aux=True))(
        params, _batch(), 0
    )
    assert np.isfinite(value) and value > 0 and value.dtype == np.float32
    assert set(metrics) == {"accuracy", *(f"accuracy_{kind}" for kind in pairs.KINDS)}
    assert set(grads) == {"classifier", "conditioner"}
    assert set(rest) == {"autoencoder", "latent_scale"}
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), jax.tree_util.keystr(path)
        assert np.abs(grad).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_loss_is_the_cross_entropy_of_the_probabilities():
    task, graphdef, params, rest = _filled()
    batch, key = _batch(), jax.random.key(0)

    @filled.jit
    def run(params, rest):
        model = nnx.merge(graphdef, params, rest)
        return task.logits(model, batch, key, train=False)

    logit_B = np.asarray(run(params, rest), np.float64)
    prob_B, match_B = 1 / (1 + np.exp(-logit_B)), np.array([1, 0, 0, 1])
    want = -np.mean(match_B * np.log(prob_B) + (1 - match_B) * np.log(1 - prob_B))
    value, metrics = _jitted(False, True)(params, batch, 0)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    right_B = (prob_B > 0.5) == match_B
    np.testing.assert_allclose(metrics["accuracy"], right_B.mean())
    for number, kind in enumerate(pairs.KINDS):
        own = right_B[batch["pair_B"] == number].mean()
        np.testing.assert_allclose(metrics[f"accuracy_{kind}"], own)


@pytest.mark.slow
def test_noised_latents_depend_on_the_step_and_clean_ones_do_not():
    _, _, params, rest = _filled()
    assert rest["latent_scale"] > 0
    noised = [_jitted(True, True)(params, _batch(), seed)[0] for seed in range(3)]
    clean = [_jitted(True, False)(params, _batch(), seed)[0] for seed in range(3)]
    # clean latents still have the posterior's noise
    assert np.ptp(noised) > 0 and np.ptp(clean) > 0
    again = _jitted(True, False)(params, _batch(), 0)[0]
    untrained = _jitted(False, False)(params, _batch(), 0)[0]
    assert again == clean[0] == untrained  # without noise, training and evaluation are the same


def test_evaluation_pools_the_batches():
    task, graphdef, params, rest = _filled()
    batches = [_batch((0, 0, 0, 1)), _batch((0, 1, 1, 1))]

    compiled = {}

    def model_fn(fn, *args):
        if fn not in compiled:
            compiled[fn] = filled.jit(lambda p, r, *a: fn(nnx.merge(graphdef, p, r), *a))
        return compiled[fn](params, rest, *args)

    got = task.evaluate(model_fn, batches)
    assert set(got) == {"accuracy", "accuracy_true", "accuracy_shifted"}  # there is no other
    pooled = (4 * got["accuracy_true"] + 4 * got["accuracy_shifted"]) / 8
    np.testing.assert_allclose(got["accuracy"], pooled)


def test_classifier_reads_step_rows_and_times():
    _, graphdef, params, rest = _filled()

    @filled.jit
    def run(x, t_B, features, times):
        model = nnx.merge(graphdef, params, rest)
        return model.logits(x, t_B, features, context_s_BL=times)

    rng = np.random.default_rng(0)
    x, features = rng.standard_normal((2, 4, 8, 4)), rng.standard_normal((2, 4, 5))
    x, features, t_B = np.float32(x), np.float32(features), np.float32([3, 500.5])
    times = np.broadcast_to(np.arange(4, dtype=np.float32) * 0.005, (2, 4))
    first = run(x, t_B, features, times)
    assert first.shape == (2,) and first.dtype == np.float32
    for other in (
        run(-x, t_B, features, times),
        run(x, t_B + 100, features, times),
        run(x, t_B, -features, times),
        run(x, t_B, features, times + 0.01),
    ):
        assert np.abs(other - first).min() > 1e-5


@pytest.mark.slow
def test_raw_rows_go_past_the_conditioner():
    model = filled.module(
        lambda keys: alignment.from_config(
            {
                "classifier": {
                    "model_channels": 8,
                    "channel_mult": (1,),
                    "attention_downsamples": (),
                    "num_heads": 2,
                    "context_dim": 6,
                    "num_groups": 4,
                },
                "conditioner": {"in_dim": 6, "out_dim": 6, "max_len": 4},
            },
            rngs=keys,
        )
    )
    rng = np.random.default_rng(0)
    x, features = np.float32(rng.standard_normal((1, 2, 2, 4))), rng.standard_normal((1, 4, 6))
    features, t_B = np.float32(features), np.float32([10])
    graphdef, state = nnx.split(model)

    @filled.jit
    def run(state, x, t_B, features):
        model = nnx.merge(graphdef, state)
        raw, embedded = model.logits(x, t_B, features, embed=False), model.logits(x, t_B, features)
        wanted = [model.classifier(x, t_B, r) for r in (features, model.conditioner(features))]
        return raw, embedded, wanted, model.log_prob(x, t_B, features, embed=False)

    raw, embedded, wanted, log_prob = run(state, x, t_B, features)
    np.testing.assert_allclose([raw, embedded], wanted, rtol=1e-5)
    assert abs(raw[0] - embedded[0]) > 1e-3
    np.testing.assert_allclose(np.exp(log_prob), 1 / (1 + np.exp(-raw)), rtol=1e-5)
    # more features than the conditioner has positions: only raw ones pass
    long = np.tile(features, (1, 2, 1))
    jax.eval_shape(lambda: model.logits(x, t_B, long, embed=False))
    with pytest.raises(ValueError, match="at most 4 features"):
        jax.eval_shape(lambda: model.logits(x, t_B, long))
    with pytest.raises(ValueError, match="no autoencoder"):
        model.encode_mel(np.zeros((1, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditioner": {"in_dim": 5, "out_dim": 7}}, "out_dim is 7, classifier.context_dim is 6"),
        ({"unet": {}}, "no field unet"),
        ({"classifier": {"in_channels": 3, "context_dim": 6}}, "z_channels is 4"),
    ],
)
def test_configs_that_do_not_fit_are_refused(change, message):
    config = _config(**change)
    with pytest.raises(ValueError, match=message):
        network_lib.shapes(tasks.resolve(config).build)


def test_decay_spares_the_locality_prior():
    task, _, params, _ = _filled()
    mask = task.weight_decay_mask(params)
    block = mask["classifier"]["middle_block"][1]["transformer_blocks"][0]
    assert not any(jax.tree.leaves(block["locality"]))
    assert all(jax.tree.leaves(mask["conditioner"]))


def test_paper_sizes():
    task = tasks.resolve(stage.get_config())
    model = network_lib.shapes(task.build)
    count = lambda part: sum(leaf.size for leaf in jax.tree.leaves(nnx.state(part)))  # noqa: E731
    # what the published checkpoint holds
    assert count(model.classifier) == 11_450_753 and count(model.conditioner) == 283_136
    assert model.latent_scale.shape == ()
    assert stage.get_config().model.latent_scale == latent_diffusion.LATENT_SCALE


@pytest.mark.parametrize("arg", ["", "eval", "demo", "demo_eval"])
def test_every_variant_builds_and_fits_its_data(arg):
    config = stage.get_config(arg)
    assert config.loss.noised == (not arg.endswith("eval"))
    task = tasks.resolve(config)
    assert isinstance(task, task_lib.AlignmentTask)
    transform = task.transform(train=True)
    fh, fw = (8, 8) if "demo" not in arg else config.model.autoencoder.patch
    assert transform.window_frames % fw == 0 and config.audio.num_mels % fh == 0
    assert config.model.classifier.in_channels == config.model.autoencoder.z_channels
    with pytest.raises(ValueError, match="no variant"):
        stage.get_config("dmo")


@pytest.mark.slow
def test_shows_pairs_with_their_scores(monkeypatch):
    task, graphdef, params, rest = _filled()
    notes = []
    plain = exhibits.mels

    def spy(titled, *, notes: list, seen=notes):
        seen.extend(notes)
        return plain(titled, notes=notes)

    monkeypatch.setattr(exhibits, "mels", spy)
    found = filled.shown(task, nnx.merge(graphdef, params, rest), _batch(), 3)
    assert set(found) == {f"{what}/{i}" for what in ("mel", "sound_of_pair") for i in range(3)}
    assert found["mel/0"].pixels_HWC.shape == (14 + 2 * 8, 2 * 16, 3)
    assert found["sound_of_pair/0"].audio_L.shape == (16 * 20,)
    kinds, scores = zip(*(note.split(", p(match) = ") for note in notes))
    assert kinds == ("true", "shifted", "other")
    logits = filled.jit(_clean_logits)(params, _batch())
    np.testing.assert_allclose(
        [float(score) for score in scores], jax.nn.sigmoid(logits)[:3], atol=6e-4
    )


def _clean_logits(params, batch):
    task, graphdef, _, rest = _filled()
    model = nnx.merge(graphdef, params, rest)
    latents = model.encode_mel(task.mels(batch))
    features = batch["cavp_BLD"].astype(np.float32)
    return model.logits(latents, jnp.zeros(4), features, context_s_BL=batch["context_s_BL"])
