"""Going on with a run under another config: no record twice, and one line for all that differs."""

import json
import shutil

import numpy as np
import pytest
import runs

from foley_jax.data import pipeline, records
from foley_jax.data import position as position_lib
from foley_jax.training import continuation, loop
from foley_jax.training.checkpointing import checkpoint, run_directory

# of one device, so that batches of any size fit
pytestmark = pytest.mark.usefixtures("quick_compilation", "one_device")
RECORDS = 40  # of the toy data
INDEXED = {"task": "indexed_task:IndexedTask", "eval_batches": 0, "checkpoint__every_steps": 0}


@pytest.fixture
def train(toy_data, tmp_path, capsys):
    """Trains, or goes on; returns the lines about what differs."""

    def run(total_steps, *, data=toy_data, accept_changes=False, **fields):
        config = runs.config(data, **{**INDEXED, "total_steps": total_steps, **fields})
        config.model.ballast = 0
        capsys.readouterr()
        loop.train(config, tmp_path, accept_changes=accept_changes)
        told = capsys.readouterr().err.splitlines()
        return [line.strip() for line in told if line.startswith("  since step")]

    return run


def taken(workdir):
    """All records that a run took, in order."""
    lines = runs.lines(workdir)
    found = []
    for step in sorted(lines):
        size = sum(name.startswith("record_") for name in lines[step])
        found += [int(lines[step][f"record_{i}"]) for i in range(size)]
    return found


def stream(data, count, seed=3, first=0):
    """Records `first`, ..., `first + count - 1` of the order of a seed."""
    source = pipeline.open_source(data, "train")

    def index_of(source, index, rng):
        del source, rng
        return {"index": np.int32(index)}

    batches = pipeline.make_iterator(
        source,
        index_of,
        global_batch=count,
        seed=seed,
        position=first,
        process_index=0,
        process_count=1,
        read_threads=0,
    )
    return next(batches)["index"].tolist()


def forget_about(workdir):
    """Makes the checkpoints what earlier versions wrote."""
    for file in workdir.glob("checkpoints/*/manifest/metadata"):
        content = json.loads(file.read_text())
        kept = {k: v for k, v in content.items() if k not in ("about", "crc32_rest")}
        file.write_text(json.dumps(kept))


@pytest.mark.slow
def test_another_batch_size_neither_repeats_nor_passes_over_a_record(train, toy_data, tmp_path):
    assert train(3, batch_size=4) == []
    assert train(6, batch_size=8)[:1] == [
        "since step 3: batch_size 4 -> 8: goes on behind the records taken so far; the learning "
        "rate is not scaled"
    ]
    told = train(8, batch_size=4, accumulate=2)
    shown = [line.split(":")[1] for line in told[:2]]
    assert shown == [" accumulate not set -> 2", " batch_size 8 -> 4"]
    # parts of a batch log the means of their records: these are counted by the checkpoint alone
    assert taken(tmp_path)[:36] == stream(toy_data, 3 * 4 + 3 * 8)
    assert checkpoint.Checkpoints(tmp_path, read_only=True).about(8)["records"] == 36 + 2 * 4


@pytest.mark.slow
def test_checkpoints_of_earlier_versions_count_by_the_config_they_had(train, toy_data, tmp_path):
    train(3, batch_size=4)
    forget_about(tmp_path)
    # a start that is killed before it saves leaves its config behind
    with pytest.raises(loop.NanError):
        train(5, batch_size=8, loss__nan_after=3)
    train(7, batch_size=8)
    assert taken(tmp_path) == stream(toy_data, 3 * 4 + 4 * 8)
    assert sorted(taken(tmp_path)[:RECORDS]) == list(range(RECORDS))


@pytest.mark.slow
def test_more_steps_follow_the_new_schedule_and_say_so(train, tmp_path):
    train(4)
    (line,) = train(8)
    rates = {step: row["lr"] for step, row in runs.lines(tmp_path).items()}
    assert line == (
        "since step 4: total_steps 4 -> 8: the new schedule is followed; the learning rate at step "
        f"4 goes from 0 to {rates[5]:.3g}"
    )
    assert train(8, log_every=3) == []  # it was finished


@pytest.mark.slow
def test_what_changes_no_result_is_not_told_and_all_configs_are_kept(train, tmp_path):
    def again(**fields):
        """From step 2 on."""
        shutil.rmtree(tmp_path / "checkpoints" / "4")
        return train(4, **{"checkpoint__every_steps": 2, **fields})

    train(4, checkpoint__every_steps=2)
    first = taken(tmp_path)
    assert again() == [] and not (tmp_path / "configs.jsonl").exists()
    assert again(log_every=2, data__read_threads=1, mesh__fsdp=1, checkpoint__keep=2) == []
    assert again(optimizer__clip_norm=0.5) == [
        "since step 2: optimizer.clip_norm 1.0 -> 0.5: holds from here on; the moments of the "
        "optimizer stay"
    ]
    assert taken(tmp_path) == first
    lines = [json.loads(one) for one in (tmp_path / "configs.jsonl").read_text().splitlines()]
    assert [one["from_step"] for one in lines] == [0, 2]
    assert [one["config"]["optimizer"]["clip_norm"] for one in lines] == [1.0, 0.5]
    assert [one["config"]["log_every"] for one in lines] == [1, 1]
    assert run_directory.load_config(tmp_path).optimizer.clip_norm == 0.5


def other_shards(folder, new, *, sizes, split="train", renamed=""):
    """Returns the same records in shards of other sizes, or of other names."""
    source = pipeline.open_source(folder, split)
    infos, first = [], 0
    for number, size in enumerate(sizes):
        with records.ShardWriter(new, split, number) as writer:
            for i in range(first, first + size):
                clip = source[i]
                clip.id += renamed
                writer.add(clip)
        infos.append(writer.info)
        first += size
    records.write_index(new, records.Index(4.0, 16, 16, 16000, tuple(infos)))
    return new


@pytest.mark.slow
def test_other_shards_of_the_same_records_go_on_exactly(train, toy_data, tmp_path):
    other = other_shards(toy_data, tmp_path / "other", sizes=(10, 10, 20))
    train(3, batch_size=8)
    (line, _) = train(5, batch_size=8, data=other)
    assert line == (
        "since step 3: data: other files, the same records in the same order; goes on at record "
        "24 of 40"
    )
    moved = shutil.copytree(other, tmp_path / "moved")
    assert len(train(7, batch_size=8, data=moved)) == 1  # of the steps; the files are the same
    assert taken(tmp_path) == stream(toy_data, 7 * 8)


def order(**fields):
    values = {"seed": 3, "num_records": 40, "digest": "a", "ids": ("x", "y", "z")}
    return position_lib.Order(**{**values, **fields})


@pytest.mark.parametrize(
    ("other", "position", "told"),
    [
        ({}, 60, None),
        ({"digest": "b"}, 60, "goes on at record 20 of 40"),
        ({"digest": "b", "ids": ("x", None, "z")}, 60, "goes on at record 20 of 40"),
        ({"digest": "b", "ids": ("x", "q", "z")}, 80, "40 other records than the 40 before"),
        ({"digest": "b", "ids": (None,) * 3}, 80, "other records than"),
        ({"digest": "b", "num_records": 52}, 104, "the last one ends at record 20 of 40"),
        ({"seed": 4}, 80, "seed 3 -> 4; a new epoch begins"),
    ],
)
def test_another_order_begins_a_new_epoch(toy_data, other, position, told):
    """Every record of the new order comes once before one comes twice."""
    config = runs.config(toy_data)
    before = {"config": run_directory.plain(config), "records": 60}
    before["order"] = {**vars(order())}
    goes_on = continuation.of(before, config, order(**other), 7)
    assert goes_on.position == position
    assert [told in line for line in goes_on.lines] == ([] if told is None else [True])


def test_an_earlier_version_in_another_folder_is_compared_where_that_is_there(toy_data, tmp_path):
    folder = shutil.copytree(toy_data, tmp_path / "old")
    now = position_lib.Order.of(
        toy_data, "train", pipeline.open_source(toy_data, "train"), runs.config(toy_data).seed
    )
    before = {"config": run_directory.plain(runs.config(folder, batch_size=8))}
    goes_on = continuation.of(before, runs.config(toy_data), now, 7)
    assert (goes_on.position, goes_on.lines) == (56, ())
    shutil.rmtree(folder)
    goes_on = continuation.of(before, runs.config(toy_data), now, 7)
    assert goes_on.position == 80
    assert f"holds the records of {folder} cannot be told" in goes_on.lines[0]


@pytest.mark.slow
def test_another_seed_and_other_records_in_a_run(train, toy_data, tmp_path):
    train(3, batch_size=8)
    told = train(8, batch_size=8, seed=5)
    assert "by seed 3 -> 5; a new epoch begins, the last one ends at record 24 of 40" in told[0]
    assert taken(tmp_path)[24:] == stream(toy_data, 40, seed=5, first=40)
    fewer = other_shards(toy_data, tmp_path / "fewer", sizes=(24,), renamed="'")
    assert "data: 24 other records than the 40 before" in train(11, seed=5, data=fewer)[0]
    assert sorted(taken(tmp_path)[64:]) == list(range(24))


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("audio", {"hop": 128}, None),  # not known before: perhaps its default
        ("video", {"fps": 8.0}, "video.fps 4.0 -> 8.0"),
        ("model", {"width": 8, "heads": 2}, "model.heads 4 -> 2"),
        ("loss", {"nan_after": 0, "prediction": "v"}, "loss.prediction eps -> v"),
        ("task", "another", "task toy_task:ToyTask -> another"),
        ("model", {"width": 8, "heads": 4, "dropout": 0.5}, None),
    ],
)
def test_what_gives_the_weights_another_meaning_is_refused(toy_data, field, value, shown):
    config = runs.config(toy_data)
    config.video = {"fps": 4.0}
    config.model = {"width": 8, "heads": 4, "dropout": 0.1}
    config.loss = {"nan_after": 0, "prediction": "eps"}
    before = {"config": run_directory.plain(config), "records": 8, "order": vars(order())}
    config.unlock()
    config[field] = value
    refused = continuation.refused(before, config)
    assert refused == ([] if shown is None else [shown])
    lines = continuation.of(before, config, order(), 1).lines
    assert (shown is None) == (not any("the weights have another meaning" in x for x in lines))


@pytest.mark.slow
def test_refusal_can_be_waved_and_holds_for_evaluation_too(train, toy_data, tmp_path):
    train(2, video={"fps": 4.0})
    message = r"step 2 of .* say what its weights mean: video.fps 4.0 -> 8.0; use those.*--accept_c"
    with pytest.raises(ValueError, match=message):
        train(4, video={"fps": 8.0})
    config = runs.config(toy_data, **{**INDEXED, "eval_batches": 1}, video={"fps": 8.0})
    config.model.ballast = 0
    with pytest.raises(ValueError, match=message):
        loop.evaluate(config, tmp_path)
    assert np.isfinite(loop.evaluate(config, tmp_path, accept_changes=True)["loss"])
    told = train(4, video={"fps": 8.0}, accept_changes=True)
    assert "video.fps 4.0 -> 8.0: accepted, the weights have another meaning" in told[0]
    train(5, video={"fps": 8.0})  # now it is the run's own


@pytest.mark.slow
@pytest.mark.parametrize("version", ["this", "earlier"])
def test_another_shape_is_refused_with_the_setting_that_makes_it(train, tmp_path, version):
    train(2)
    if version == "earlier":
        forget_about(tmp_path)
    for fields, shown in (
        ({"model__width": 4}, "width 8 -> 4"),
        ({"ema_decay": 0.0}, "0.9 -> 0.0"),
    ):
        with pytest.raises(ValueError, match="does not fit this config") as error:
            train(4, **fields)
        last = str(error.value).splitlines()[-1]
        assert last.startswith("  settings that differ: ") and last.endswith(shown)
    assert checkpoint.latest_step(tmp_path) == 2
