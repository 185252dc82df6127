"""MMAudio's stage: its examples, its configs, and that it learns, stops and goes on."""

import dataclasses

import filled
import jax
import numpy as np
import pytest

from configs import mmaudio
from foley_jax.data import records
from foley_jax.layers import configured
from foley_jax.mmaudio.models import flow_network
from foley_jax.training import loop, paths
from foley_jax.training import task as task_lib
from tests.mmaudio import flow_records, tiny_mmaudio

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("size", flow_network.CONFIGS)
def test_configs_are_the_released_networks(size):
    config = mmaudio.get_config(size)
    want = {**configured.defaults(flow_network.FlowNetwork), **flow_network.CONFIGS[size]}
    assert config.model.to_dict() == want
    rates = task_lib.resolve(config).rates
    assert rates.channels == want["latent_dim"] and rates.name in size


def test_recipe_is_the_published_one():
    config = mmaudio.get_config()
    lr = loop.optimizer_lib.schedule(config.optimizer, config.total_steps)
    rates = [float(lr(step)) for step in (0, 999, 1000, 240_999, 241_000, 271_000)]
    np.testing.assert_allclose(rates, np.array([1 / 1001, 1000 / 1001, 1, 1, 0.1, 0.01]) * 1e-4)
    shapes = task_lib.resolve(config).transform(train=True).shapes
    assert (shapes["mean_NC"], shapes["clip_VD"], shapes["sync_SD"], shapes["text_TD"]) == (
        (250, 20),
        (64, 1024),
        (192, 768),
        (77, 1024),
    )


def example(clip):
    task = task_lib.resolve(flow_records.config("unused"))
    back = records.decode(records.encode(clip))
    return task.transform(train=True)([back], 0, None)


@pytest.mark.parametrize(("video", "text"), [(True, True), (False, True), (True, False)])
def test_an_example_says_what_is_missing(video, text):
    made = example(flow_records.clip(0, video=video, text=text))
    assert (made["has_video_B"], made["has_text_B"]) == (video, text)
    assert made["sync_BSD"].any() == video and made["text_BTD"].any() == text
    assert {array.dtype.name for array in made.values()} == {"float32", "bool"}


def test_records_of_other_features_are_refused():
    clip = flow_records.clip(0)
    with pytest.raises(ValueError, match="mean_NC is .59, 20., expected .60, 20. by config.model"):
        short = {**clip.features, "mean_NC": clip.features["mean_NC"][1:]}
        example(dataclasses.replace(clip, features=short))
    with pytest.raises(ValueError, match="has no mean_NC.*data_prep.mmaudio_features"):
        example(dataclasses.replace(clip, features=None))


@pytest.mark.slow
def test_what_is_missing_is_not_read():
    """Features behind a false flag change nothing; behind a true one they do."""
    config = flow_records.config("unused")
    config.loss.condition_dropout = 0.0
    task = task_lib.resolve(config)
    examples = [example(flow_records.clip(i, video=i > 0, text=i > 1)) for i in range(3)]
    batch = {name: np.stack([one[name] for one in examples]) for name in examples[0]}
    model = tiny_mmaudio.flow()
    graphdef, state = flow_network.nnx.split(model)

    @filled.jit
    def loss(state, batch):
        merged = flow_network.nnx.merge(graphdef, state)
        return task.loss(merged, batch, jax.random.key(0), train=True)[0]

    first = loss(state, batch)
    for name, unread, read in (("clip_BVD", 0, 1), ("sync_BSD", 0, 1), ("text_BTD", 1, 2)):
        for row, same in ((unread, True), (read, False)):
            other = {**batch, name: batch[name].copy()}
            other[name][row] += 1.0
            assert (loss(state, other) == first) == same, (name, row)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return flow_records.write(tmp_path_factory.mktemp("flow_shards"))


@pytest.mark.slow
def test_it_learns_and_goes_on_bit_for_bit(shards, tmp_path, one_device):
    """Zeros as predictions give about 1.75; the kind of latents takes 0.75 of it."""
    config = flow_records.config(shards, total_steps=20)
    whole = loop.train(config, tmp_path / "whole")
    loop.train(flow_records.config(shards, total_steps=8), tmp_path / "parts")
    parts = loop.train(config, tmp_path / "parts")
    for name, leaf in paths.flatten(whole).items():
        np.testing.assert_array_equal(leaf, paths.flatten(parts)[name], err_msg=name)
    assert loop.evaluate(config, tmp_path / "whole")["loss"] < 1.15
