"""Checkpoints: round trip on any mesh, damage is found, named and survived."""

import logging

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import partition
from foley_jax.training.checkpointing import checkpoint, checksum, run_directory

# zlib cannot squeeze noise, so that a flipped byte hits a value
SHAPE = (64, 256)


def groups(seed, shardings=None):
    """A little state with list indices, scalars and half precision."""
    rng = np.random.default_rng(seed)
    tree = {
        "params": {
            "net": {
                0: {"kernel": rng.standard_normal(SHAPE, np.float32)},
                1: {"kernel": rng.standard_normal(SHAPE, np.float32)},
            }
        },
        "rest": {"mean": rng.standard_normal(8, np.float32), "scale": np.float32(seed)},
        "opt_state": (jnp.int32(seed), {"mu": rng.standard_normal(SHAPE).astype(jnp.bfloat16)}),
        "ema": None,
    }
    tree = jax.tree.map(jnp.asarray, tree)
    return tree if shardings is None else jax.device_put(tree, shardings)


def abstract(tree, shardings):
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def on_mesh(tree, data, fsdp):
    mesh = mesh_lib.make_mesh(data, fsdp, devices=jax.devices()[: data * fsdp])
    return partition.state_shardings(tree, mesh, min_bytes=0)


def flip_byte(step_folder, group="params"):
    """Flips one byte in the middle of a group's largest data file."""
    files = [f for f in (step_folder / group).rglob("*") if f.is_file() and "/d/" in str(f)]
    file = max(files, key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


@pytest.fixture
def run_dir(tmp_path):
    """A run directory with steps 10 and 20."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(step, groups(step))
    checkpoints.close()
    return tmp_path


def restore(run_dir, data=1, fsdp=1):
    shardings = on_mesh(groups(0), data, fsdp)
    checkpoints = checkpoint.Checkpoints(run_dir)
    found = checkpoints.restore(abstract(groups(0), shardings))
    checkpoints.close()
    return found


@pytest.mark.parametrize(("data", "fsdp"), [(1, 1), (2, 2), (1, 8)])
def test_round_trip_on_any_mesh(tmp_path, data, fsdp):
    saved = groups(5, on_mesh(groups(5), 2, 4))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(5, saved)
    checkpoints.close()
    step, restored = restore(tmp_path, data, fsdp)
    assert step == 5
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(restored)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    kernel = restored["params"]["net"][0]["kernel"]
    assert len(kernel.sharding.device_set) == data * fsdp


def test_arrays_may_be_donated_while_they_are_written(tmp_path):
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    tree = groups(7)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(7, tree)
    jax.block_until_ready(overwrite(tree))
    checkpoints.close()
    _, restored = restore(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, restored, groups(7))


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
    for step in range(4):
        checkpoints.save(step, groups(step))
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    checkpoints.close()


def test_nothing_saved_restores_nothing(tmp_path):
    assert restore(tmp_path) is None
    assert checkpoint.latest_step(tmp_path) is None
    assert checkpoint.latest_step(tmp_path / "absent") is None


@pytest.mark.slow
def test_a_flipped_byte_in_any_file_never_gives_wrong_values(run_dir):
    """Some files are not read at all; whatever is read is either right or refused."""
    wanted = abstract(groups(0), on_mesh(groups(0), 1, 1))
    found = set()
    for file in sorted(f for f in (run_dir / "checkpoints" / "20").rglob("*") if f.is_file()):
        original = file.read_bytes()
        if not original:
            continue
        damaged = bytearray(original)
        damaged[len(damaged) // 2] ^= 0x10
        file.write_bytes(damaged)
        checkpoints = checkpoint.Checkpoints(run_dir, read_only=True)
        step, restored = checkpoints.restore(wanted)
        checkpoints.close()
        file.write_bytes(original)
        jax.tree.map(np.testing.assert_array_equal, restored, groups(step))
        found.add(step)
    assert found == {10, 20}


@pytest.mark.slow
def test_a_flipped_bit_is_told_in_one_line_of_words(tmp_path, caplog):
    """Nothing else is: no error of another class, no pages of those that read beneath us."""
    tree, rng = groups(3), np.random.default_rng(0)
    run_directory.save_model(tmp_path, config=config(), params=tree["params"], rest=tree["rest"])
    expected = run_directory.load_model_state(tmp_path)
    files = sorted(f for f in tmp_path.rglob("*") if f.is_file() and f.stat().st_size)
    damaged = [(f, f.read_bytes(), rng.integers(f.stat().st_size * 8)) for f in files * 2]
    for name, key in (("rest", b"mean"), ("params", b"kernel")):  # leaves that orbax loses
        file = tmp_path / "checkpoints" / "0" / name / "_METADATA"
        content = file.read_bytes()
        damaged.append((file, content, content.rindex(key) * 8))
    told = []
    for file, content, bit in damaged:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(changed)
        try:
            found = run_directory.load_model_state(tmp_path)
            jax.tree.map(np.testing.assert_array_equal, found[1:], expected[1:])
        except checkpoint.CorruptCheckpointError as error:
            told.append(str(error))
        file.write_bytes(content)
    assert len(told) > 5
    for line in told:
        assert line.startswith(f"{tmp_path / 'checkpoints' / '0'} is damaged")
        assert len(line) < 500 and "\n" not in line and "tensorstore_spec" not in line
    assert all(record.name.startswith("foley_jax") for record in caplog.records)


@pytest.mark.parametrize(
    ("message", "news"),
    [
        ("unhandled exception during shutdown\ntask: <Task coro=<read() at {}>", False),
        ("Future exception was never retrieved ... See full TensorStore details: ...", False),
        ("Task was destroyed but it is pending! task: <Task coro=<serve() at server.py>", True),
    ],
)
def test_of_what_reads_on_beside_an_error_nothing_is_logged(tmp_path, caplog, message, news):
    """One of several readers found the damage; what the others find comes late, or not at all."""
    checkpoint.Checkpoints(tmp_path).close()  # the first one makes the log quiet
    file = "site-packages/orbax/checkpoint/_src/serialization/jax_array_handlers.py:753"
    logging.getLogger("asyncio").error(message.format(file))
    assert bool(caplog.records) == news


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"model"', '"modem"', "is damaged (it has no 'model'); using the copy in the newest"),
        ('"mult"', '"mumt"', "is damaged (it has no 'mult'); using the copy in the newest"),
        (":", "?", "is damaged (Expecting ':' delimiter"),
        ("ldm", "l\udce4m", "is damaged ('utf-8' codec can't decode"),
        ("ldm", "lem", "differ in task: it was edited or damaged"),
    ],
)
def test_a_damaged_config_is_told_and_its_copy_used(tmp_path, caplog, old, new, told):
    tree, file = groups(3), tmp_path / "config.json"
    run_directory.save_model(tmp_path, config=config(), params=tree["params"], rest=tree["rest"])
    content = file.read_bytes()
    file.write_bytes(content.replace(old.encode(), new.encode(errors="surrogateescape"), 1))
    loaded, *_ = run_directory.load_model_state(tmp_path)
    assert loaded.model.mult == (1, 2)
    (record,) = caplog.records
    assert str(file) in record.getMessage() and told in record.getMessage()


def test_a_damaged_config_without_a_copy_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{'task'")
    with pytest.raises(ValueError, match="config.json is damaged .*; copy it again"):
        run_directory.load_config(tmp_path)


@pytest.mark.parametrize("group", ["params", "opt_state"])
def test_flipped_byte_falls_back_to_the_step_before(run_dir, caplog, group):
    flip_byte(run_dir / "checkpoints" / "20", group)
    with caplog.at_level(logging.WARNING):
        step, restored = restore(run_dir)
    assert step == 10
    jax.tree.map(np.testing.assert_array_equal, restored, groups(10))
    assert "using step 10 instead" in caplog.text
    assert checkpoint.latest_step(run_dir) == 10  # the damaged one is out of the way


def test_changed_value_is_found_and_its_leaf_named(tmp_path, monkeypatch):
    """A value that changed without damage to the file format: only the checksum can tell."""
    real = checksum.of_leaves

    def of_other_values(leaves):
        sums = real(leaves)
        return {k: v ^ (1 if k == "net/1/kernel" else 0) for k, v in sums.items()}

    monkeypatch.setattr(checksum, "of_leaves", of_other_values)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, groups(1))
    checkpoints.close()
    monkeypatch.undo()
    with pytest.raises(checkpoint.CorruptCheckpointError, match="checksum of params/net/1/kernel$"):
        restore(tmp_path)


def test_damage_everywhere_is_an_error_that_names_the_steps(run_dir):
    for step in ("10", "20"):
        flip_byte(run_dir / "checkpoints" / step)
    with pytest.raises(checkpoint.CorruptCheckpointError, match=r"checkpoints/20.*checkpoints/10"):
        restore(run_dir)


def test_truncated_and_missing_files_fall_back(run_dir):
    for file in (run_dir / "checkpoints" / "20" / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])
    assert restore(run_dir)[0] == 10


def test_damaged_manifest_falls_back(run_dir):
    manifest = run_dir / "checkpoints" / "20" / "manifest" / "metadata"
    manifest.write_text(manifest.read_text().replace("[64, 256]", "[64, 257]", 1))
    assert restore(run_dir)[0] == 10


def test_interrupted_save_is_not_a_checkpoint(run_dir):
    (run_dir / "checkpoints" / "30.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.latest_step(run_dir) == 20


def test_another_model_is_refused_and_kept(run_dir):
    other = groups(0)
    other["params"]["net"][2] = {"kernel": jnp.zeros((2,))}
    other["params"]["net"][0]["kernel"] = jnp.zeros((3, 4))
    other["rest"] = {}
    shardings = on_mesh(other, 1, 1)
    with pytest.raises(ValueError) as error:
        checkpoint.Checkpoints(run_dir).restore(abstract(other, shardings))
    assert "params/net/2/kernel: not in the checkpoint" in str(error.value)
    assert "((64, 256), 'float32') in the checkpoint, ((3, 4), 'float32') wanted" in str(
        error.value
    )
    assert "rest/mean: in the checkpoint only" in str(error.value)
    assert checkpoint.latest_step(run_dir) == 20


def config():
    return ml_collections.ConfigDict({"task": "ldm", "model": {"mult": (1, 2), "x": None}})


@pytest.mark.parametrize("with_ema", [False, True])
def test_model_state_prefers_the_average(tmp_path, with_ema):
    tree = groups(1)
    if with_ema:
        tree["ema"] = jax.tree.map(lambda x: x + 1, tree["params"])
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, tree)
    checkpoints.close()
    run_directory.save_config(tmp_path, config())
    loaded, params, rest = run_directory.load_model_state(tmp_path)
    assert loaded == config() and loaded.model.mult == (1, 2)
    expected = tree["ema"] if with_ema else tree["params"]
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    jax.tree.map(np.testing.assert_array_equal, rest, tree["rest"])
    _, plain, _ = run_directory.load_model_state(tmp_path, ema=False)
    jax.tree.map(np.testing.assert_array_equal, plain, tree["params"])


def test_model_state_survives_damage_of_the_newest_but_leaves_it(run_dir):
    run_directory.save_config(run_dir, config())
    flip_byte(run_dir / "checkpoints" / "20")
    _, params, _ = run_directory.load_model_state(run_dir)
    jax.tree.map(np.testing.assert_array_equal, params, groups(10)["params"])
    assert checkpoint.latest_step(run_dir) == 20
    with pytest.raises(checkpoint.CorruptCheckpointError, match="checkpoints/20 is damaged"):
        run_directory.load_model_state(run_dir, step=20)
    with pytest.raises(FileNotFoundError, match=r"no step 15; it has \[10, 20\]"):
        run_directory.load_model_state(run_dir, step=15)


def test_converted_model_reads_like_a_run(tmp_path):
    tree = groups(3)
    run_directory.save_model(
        tmp_path, config=config(), params=tree["params"], rest=tree["rest"], kind="diff_foley/ldm"
    )
    loaded, params, rest = run_directory.load_model_state(tmp_path)
    assert loaded.kind == "diff_foley/ldm"
    jax.tree.map(np.testing.assert_array_equal, (params, rest), (tree["params"], tree["rest"]))
    with pytest.raises(ValueError, match="holds a checkpoint already"):
        run_directory.save_model(tmp_path, config=config(), params=tree["params"], rest={})


def test_missing_run_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="--config=configs/cavp.py --workdir=.*runs/cavp"):
        run_directory.load_model_state(tmp_path / "runs" / "cavp")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_checksum_is_the_closed_form_and_the_same_on_every_mesh(dtype, monkeypatch):
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 200, (8, 12)).astype(dtype)
    bits = {"float32": np.uint32, "bfloat16": np.uint16, "int32": np.uint32}.get(dtype, np.uint8)
    index = np.arange(x.size, dtype=np.uint64)
    weights = (index * 0x9E3779B1) % 2**32 | 1
    expected = int((np.ravel(x).view(bits).astype(np.uint64) * weights % 2**32).sum() % 2**32)
    assert checksum.of_leaves({"x": jnp.asarray(x)})["x"] == expected
    split = jax.device_put(x, mesh_lib.batch(mesh_lib.make_mesh(2, 4)))
    assert checksum.of_leaves({"x": split})["x"] == expected
    # what accelerators and several processes use
    assert int(jax.jit(checksum.weighted_sum)(jnp.asarray(x))) == expected
    assert int(jax.jit(checksum.weighted_sum)(split)) == expected
    monkeypatch.setattr(checksum, "_lies_on_host", lambda x: False)
    assert checksum.of_leaves({"x": split, "y": jnp.asarray(x)}) == {"x": expected, "y": expected}


def test_checksum_sees_every_single_bit():
    x = np.random.default_rng(0).standard_normal(16, np.float32)
    original = checksum.of_leaves({"x": jnp.asarray(x)})["x"]
    variants = np.repeat(x.view(np.uint32)[None], 512, 0)
    variants[np.arange(512), np.arange(512) // 32] ^= np.uint32(1) << (np.arange(512) % 32).astype(
        np.uint32
    )
    sums = jax.vmap(checksum.weighted_sum)(jnp.asarray(variants))
    assert not np.any(np.asarray(sums) == original)
