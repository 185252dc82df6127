"""Models as two files: the same numbers, the same audio, damage named."""

import filled
import jax
import numpy as np
import pytest
import tiny_foley

from foley_jax import convert, sample
from foley_jax.interop import hub
from foley_jax.training.checkpointing import exported, run_directory

GROUPS = {
    "params": {"a/0/kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7},
    "rest": {"b/count": np.array(3, np.int32)},
}


def test_weights_come_back_bit_for_bit(tmp_path):
    exported.write(tmp_path / "new", GROUPS)
    found = exported.read(tmp_path / "new")
    for name, leaves in GROUPS.items():
        for path, leaf in leaves.items():
            assert found[name][path].dtype == leaf.dtype
            np.testing.assert_array_equal(found[name][path], leaf)
    assert exported.shapes(tmp_path / "new") == {"a/0/kernel": (2, 3), "b/count": ()}


def test_half_the_size_is_read_as_the_model_has_it(tmp_path):
    values = np.linspace(-3, 3, 10_000, dtype=np.float32)
    size = exported.write(tmp_path, {"params": {"a": values}}, dtype="bfloat16")
    found = exported.read(tmp_path)["params"]["a"]
    wanted = values.astype(jax.numpy.bfloat16).astype(np.float32)
    assert found.dtype == np.float32 and size < 0.55 * values.nbytes
    np.testing.assert_array_equal(found, wanted)


def test_a_quarter_of_the_size_is_within_half_a_step_of_each_last_axis(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 64, 32)).astype(np.float32)
    kernel[..., 5], kernel[..., 7] = 0, kernel[..., 7] * 1e-6
    leaves = {"kernel": kernel, "bias": kernel[0, 0, 0]}
    size = exported.write(tmp_path, {"params": leaves}, dtype="int8")
    found = exported.read(tmp_path)["params"]
    step = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    assert (np.abs(found["kernel"] - kernel) <= 0.5001 * step).all()
    np.testing.assert_array_equal(found["bias"], leaves["bias"])  # vectors are kept as they are
    assert found["kernel"].dtype == np.float32 and size < 0.28 * kernel.nbytes
    assert exported.shapes(tmp_path) == {"kernel": (3, 3, 64, 32), "bias": (32,)}


@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
def test_weights_that_another_model_holds_are_read_from_it(tmp_path, dtype):
    both = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    first = {"params": {"net/kernel": both, "own/kernel": both[:8]}, "rest": {}}
    second = {"params": {"own/kernel": both[:8] + 1}, "rest": {"net/kernel": both}}
    third = {"params": {"net/kernel": both, "own/kernel": both[:8] + 1}, "rest": {}}
    exported.write(tmp_path / "first", first, dtype=dtype)
    exported.write(tmp_path / "second", second, dtype=dtype, share=tmp_path / "first")
    exported.write(tmp_path / "third", third, dtype=dtype, share=tmp_path / "first")
    alone = exported.write(tmp_path / "alone", third, dtype=dtype)
    found, wanted = exported.read(tmp_path / "third"), exported.read(tmp_path / "alone")
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert (tmp_path / "third" / exported.WEIGHTS).stat().st_size < 0.6 * alone
    # trained in one model and frozen in the other: the same network
    np.testing.assert_array_equal(
        exported.read(tmp_path / "second")["rest"]["net/kernel"], wanted["params"]["net/kernel"]
    )
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="first, which is not there; copy both"):
        exported.read(tmp_path / "third")


def test_only_wanted_leaves_are_read(tmp_path):
    exported.write(tmp_path, GROUPS)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found = exported.read(tmp_path, shardings={"b/count": here})
    assert found == {"params": {}, "rest": {"b/count": 3}}


def test_what_cannot_be_is_told(tmp_path):
    large = {"params": {"a": np.float32([1e6])}}
    with pytest.raises(ValueError, match="params/a reaches 1e.06, too large for float16"):
        exported.write(tmp_path, large, dtype="float16")
    exported.write(tmp_path, GROUPS)
    with pytest.raises(ValueError, match="holds an exported model already"):
        exported.write(tmp_path, GROUPS)
    file = tmp_path / exported.WEIGHTS
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match=f"{exported.WEIGHTS} is damaged .*copy it again"):
        exported.read(tmp_path)


@pytest.mark.slow
def test_the_command_writes_a_folder_that_is_read_like_the_run(tmp_path, capsys):
    filled.save_run(tmp_path / "ldm", tiny_foley.ldm())
    assert convert.main(["export", str(tmp_path / "ldm"), str(tmp_path / "travels")]) == 0
    assert "MB of weights" in capsys.readouterr().out
    ours, theirs = (run_directory.load_model_state(tmp_path / d) for d in ("ldm", "travels"))
    jax.tree.map(np.testing.assert_array_equal, ours[1:], theirs[1:])
    assert theirs[0].cavp == "cavp"  # beside it, wherever it goes
    assert convert.main(["export", str(tmp_path / "none"), str(tmp_path / "x")]) == 1
    assert "no checkpoint in" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_audio_here_and_from_the_hub(tmp_path, monkeypatch):
    tiny_foley.save_runs(tmp_path / "runs")
    travels = tmp_path / "travels" / "model"
    assert convert.main(["export", str(tmp_path / "runs" / "ldm"), str(travels)]) == 0
    monkeypatch.setattr(hub, "folder", lambda source, wanted: travels)
    (clip,) = tiny_foley.write_videos(tmp_path, [1.5])
    made = [
        sample.load(where)(clip, seed=1, steps=2).audio
        for where in (tmp_path / "runs" / "ldm", travels, "hub:me/model")
    ]
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])
    file = travels / "cavp" / exported.WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="cavp/weights.safetensors is damaged or was changed"):
        sample.load(travels)
