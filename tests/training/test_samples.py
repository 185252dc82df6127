"""Video and audio in TensorBoard's files; they never stop a training."""

import io

import numpy as np
import PIL.Image
import pytest
import runs
import showing_config
import showing_task
import soundfile
from tensorboard.backend.event_processing import event_accumulator

from foley_jax.training import loop
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import checkpoint
from foley_jax.training.logging import metrics_log


def board(workdir):
    """Returns what TensorBoard would show of a run."""
    everything = {event_accumulator.IMAGES: 0, event_accumulator.AUDIO: 0}
    found = event_accumulator.EventAccumulator(str(workdir), size_guidance=everything)
    return found.Reload()


def config(data, **fields):
    """The showing task's config with top-level fields changed."""
    result = showing_config.get_config(str(data))
    result.update(fields)
    return result


@pytest.mark.slow
def test_images_and_audio_are_written_at_intervals(toy_data, tmp_path):
    """On 8 devices, of which two would have an example each."""
    loop.train(config(toy_data), tmp_path)
    found = board(tmp_path)
    tags = found.Tags()
    assert sorted(tags["images"]) == ["picture/0", "picture/1"]
    assert sorted(tags["audio"]) == ["sound/0", "sound/1"]
    for tag in tags["images"]:
        shown = found.Images(tag)
        assert [event.step for event in shown] == [3, 6]
        for event in shown:
            pixels = np.asarray(PIL.Image.open(io.BytesIO(event.encoded_image_string)))
            assert pixels.shape == (4, 6, 3) and (event.height, event.width) == (4, 6)
            assert (pixels == event.step).all()  # the state after so many updates
    quiet, loud = (found.Audio(f"sound/{i}") for i in range(2))
    assert [event.step for event in loud] == [3, 6]
    assert {event.sample_rate for event in quiet + loud} == {showing_task.RATE_HZ}
    heard = [soundfile.read(io.BytesIO(e.encoded_audio_string))[0] for e in (*quiet, *loud)]
    assert all(audio.shape == (80,) for audio in heard)
    np.testing.assert_array_equal(heard[0], heard[1])  # the same example at every interval
    assert heard[0][0] != heard[2][0]


@pytest.mark.slow
def test_resumed_run_shows_what_an_uninterrupted_one_does(toy_data, tmp_path, one_device):
    loop.train(config(toy_data, total_steps=3), tmp_path)
    loop.train(config(toy_data), tmp_path)
    assert [event.step for event in board(tmp_path).Images("picture/0")] == [3, 6]


@pytest.mark.slow
def test_configs_without_the_fields_or_with_zeros_show_nothing(
    toy_data, tmp_path, one_device, capsys
):
    fields, old = ("show_every", "show_examples"), config(toy_data, total_steps=3)
    for name in fields:
        del old[name]
    never, nobody = (config(toy_data, total_steps=3, **{name: 0}) for name in fields)
    for number, quiet in enumerate((old, never, nobody)):
        loop.train(quiet, tmp_path / str(number))
        assert not board(tmp_path / str(number)).Tags()["images"]
    assert "warning" not in capsys.readouterr().err


def test_examples_of_training_where_nothing_is_evaluated(toy_data, tmp_path, one_device):
    without = config(toy_data, eval_batches=0, total_steps=3)
    without.data.eval_split = "nowhere"
    loop.train(without, tmp_path)
    assert len(board(tmp_path).Tags()["images"]) == 2


@pytest.mark.slow
def test_failures_are_named_once_and_end_nothing(toy_data, tmp_path, one_device, capsys):
    whole, partly = tmp_path / "whole", tmp_path / "partly"
    loop.train(config(toy_data, task="showing_task:BrokenTask"), whole)
    shown = capsys.readouterr().err
    assert checkpoint.latest_step(whole) == 7
    assert shown.count("BrokenTask shows cannot be made (RuntimeError: no paint left)") == 1

    loop.train(config(toy_data, task="showing_task:PartlyBrokenTask"), partly)
    shown = capsys.readouterr().err
    assert checkpoint.latest_step(partly) == 7
    assert shown.count("sound/bad cannot be written") == 1
    assert len(board(partly).Images("picture/1")) == 2


def test_loud_audio_is_clipped_and_pcm_kept(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, start_step=0, total_steps=1)
    loud = task_lib.Audio(np.array([0.5, 3.0, -3.0]), 100)
    log.show(1, {"loud": loud, "pcm": task_lib.Audio(np.array([1, -2, 300], np.int16), 100)})
    log.close()
    found = board(tmp_path)
    for name, wanted in (("loud", [16384, 32767, -32768]), ("pcm", [1, -2, 300])):
        (event,) = found.Audio(name)
        heard = soundfile.read(io.BytesIO(event.encoded_audio_string), dtype="int16")[0]
        np.testing.assert_allclose(heard, wanted, atol=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: task_lib.Image(np.zeros((4, 6, 3))), r"an image is float64\[4, 6, 3\]"),
        (lambda: task_lib.Image(np.zeros((4, 6), np.uint8)), "expected uint8"),
        (lambda: task_lib.Image(np.zeros((0, 6, 3), np.uint8)), "expected uint8"),
        (lambda: task_lib.Audio(np.zeros((2, 9)), 100), "expected finite"),
        (lambda: task_lib.Audio(np.array([0.0, np.nan]), 100), "expected finite"),
    ],
)
def test_what_cannot_be_shown_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_two_processes_show_what_one_does(toy_data, tmp_path):
    """Both take part in the programs; neither waits for the other for ever."""
    address = f"127.0.0.1:{runs.free_port()}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [
        runs.spawn(
            toy_data,
            tmp_path,
            "--distributed",
            env={**common, "JAX_PROCESS_ID": str(index)},
            config="showing_config",
        )
        for index in range(2)
    ]
    runs.finish(*processes, timeout=300)
    found = board(tmp_path)
    assert [event.step for event in found.Images("picture/1")] == [3, 6]
    assert [event.step for event in found.Audio("sound/1")] == [3, 6]
