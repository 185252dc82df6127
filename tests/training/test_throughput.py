"""Speed, waiting and utilisation: only training counts, and nothing is made up."""

import threading
import time

from flax import nnx
import jax
import pytest
import runs
import toy_task

from foley_jax.runtime import chips
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training import evaluator, loop
from foley_jax.training import step as step_lib
from foley_jax.training.logging import mfu, throughput

CHIP = chips.Chip("toy", {"float32": 1e6}, 1e9, 1e9, 1e9)


class Clock:
    """Seconds that a test turns itself."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Work:
    """Everything that a device gives once it has been told to finish."""

    def __init__(self):
        self.finish = threading.Event()

    def block_until_ready(self):
        assert self.finish.wait(60)


@pytest.fixture
def clock(monkeypatch):
    """A clock in the test's hand for every meter."""
    clock = Clock()
    plain = throughput.Meter
    monkeypatch.setattr(throughput, "Meter", lambda batch_size: plain(batch_size, clock=clock))
    return clock


def idle(meter):
    """Waits until the meter has seen that the device is idle."""
    deadline = time.monotonic() + 60
    while meter._idle_since is None:
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.001)


def test_pauses_do_not_count(clock):
    measured = throughput.Meter(8)
    with measured.compiling():
        clock.now += 50.0
    for _ in range(4):
        measured.stepped(None)
        clock.now += 0.5
    with measured.paused():
        clock.now += 1000.0
    values = measured.read()
    assert values == {
        "steps_per_s": 2.0,
        "examples_per_s": 16.0,
        "data_wait": 0.0,
        "compile_s": 50.0,
    }
    measured.stepped(None)
    clock.now += 4.0
    again = measured.read()
    assert again["steps_per_s"] == 0.25
    assert "compile_s" not in again
    measured.close()


def test_waiting_counts_while_the_device_is_idle_only(clock):
    measured, work = throughput.Meter(1), Work()
    measured.stepped(work)
    with measured.waiting():
        clock.now += 3.0  # the device is at work: nothing is lost
    assert measured.read()["data_wait"] == 0.0

    with measured.waiting():
        clock.now += 1.0
        work.finish.set()
        idle(measured)  # at this moment
        clock.now += 2.0
    with measured.waiting():
        clock.now += 1.0
    assert measured.read()["data_wait"] == pytest.approx(3.0 / 4.0)

    late, later = Work(), Work()
    measured.stepped(late)
    measured.stepped(later)
    late.finish.set()  # one of two: still at work
    with measured.waiting():
        clock.now += 1.0
    assert measured.read()["data_wait"] == 0.0
    later.finish.set()
    measured.close()


@pytest.mark.slow
def test_evaluation_and_saving_do_not_slow_the_steps(
    toy_data, tmp_path, monkeypatch, clock, one_device
):
    make = step_lib.make

    def timed(*args, **kwargs):
        step = make(*args, **kwargs)

        def call(*args):
            clock.now += 1.0
            return step(*args)

        return call

    def slow(self, state):
        clock.now += 1000.0
        return {"loss": 0.0}

    monkeypatch.setattr(step_lib, "make", timed)
    monkeypatch.setattr(evaluator.Evaluator, "__call__", slow)
    runs.train(toy_data, tmp_path, total_steps=8, log_every=3, eval_every=2)
    lines = runs.lines(tmp_path)
    assert sorted(lines) == [3, 6, 8]
    assert lines[3]["compile_s"] == 1.0
    assert lines[3]["steps_per_s"] == 1.5  # three steps, one of which was compiled
    for step in (6, 8):
        assert lines[step]["steps_per_s"] == 1.0
        assert lines[step]["examples_per_s"] == 8.0
        assert "compile_s" not in lines[step]


def test_lines_tell_what_is_known_and_no_more(toy_data, tmp_path, one_device):
    runs.train(toy_data, tmp_path, total_steps=3)
    for line in runs.lines(tmp_path).values():
        assert line["examples_per_s"] == pytest.approx(8 * line["steps_per_s"])
        assert 0.0 <= line["data_wait"] <= 1.0
        assert not {"mfu", "memory_gib"} & set(line)  # of a CPU, neither is known


@pytest.mark.slow
@pytest.mark.parametrize("more, advised", [(0.01, 1), (-0.01, 0)])
def test_advice_is_given_once(toy_data, tmp_path, monkeypatch, capsys, one_device, more, advised):
    read = throughput.Meter.read
    waited = {"data_wait": throughput.SLOW_DATA + more}  # the clock of a busy machine tells nothing
    monkeypatch.setattr(throughput.Meter, "read", lambda self: read(self) | waited)
    runs.train(toy_data, tmp_path, total_steps=6)
    shown = capsys.readouterr().err
    assert shown.count("try more --config.data.read_threads (now 2)") == advised
    assert runs.lines(tmp_path)[6]["data_wait"] == waited["data_wait"]


class RematModel(nnx.Module):
    """The toy model, its first layers computed again for the gradient."""

    def __init__(self, width, *, remat, rngs):
        self.inner = toy_task.ToyModel(width, rngs=rngs)
        self.remat = remat

    def __call__(self, x_BC):
        def run(x_BC):
            return nnx.tanh(self.inner.layers[1](nnx.tanh(self.inner.layers[0](x_BC))))

        return (jax.checkpoint(run) if self.remat else run)(self.inner.frozen(x_BC))[:, 0]


class RematTask(toy_task.ToyTask):
    def build(self, rngs):
        return RematModel(8, remat=self.config.model.remat, rngs=rngs)

    def loss(self, model, batch, key, *, train):
        return ((model(batch["x_BC"]) - batch["y_B"]) ** 2).mean(), {}


def _flops(task, data):
    mesh = mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    maker = loop.maker_of(task, runs.config(data), mesh)
    batch = {
        "x_BC": jax.ShapeDtypeStruct((8, 4), "float32"),
        "y_B": jax.ShapeDtypeStruct((8,), "float32"),
    }
    return mfu.step_flops(task, maker, batch)


# frozen layer forwards; the first trained one forwards and for its kernel; the second also for
# its input. 2 FLOPs for each of 8 examples and every weight.
TOY_FLOPS = 2 * 8 * (4 * 4 + 2 * 4 * 8 + 3 * 8 * 1)


def test_step_flops_are_those_of_the_model(toy_data):
    assert _flops(toy_task.ToyTask(runs.config(toy_data)), toy_data) == TOY_FLOPS
    for remat in (False, True):
        config = runs.config(toy_data, model__remat=remat)
        assert _flops(RematTask(config), toy_data) == TOY_FLOPS


def test_mfu_is_flops_and_speed_over_the_peak(toy_data, tmp_path, monkeypatch, one_device):
    monkeypatch.setattr(chips, "find", lambda kind: CHIP)
    count = mfu.Utilisation.count

    def at_once(self, batch):
        count(self, batch)
        self.wait(60)

    monkeypatch.setattr(mfu.Utilisation, "count", at_once)
    runs.train(toy_data, tmp_path, total_steps=2)
    for line in runs.lines(tmp_path).values():
        assert line["mfu"] == pytest.approx(TOY_FLOPS * line["steps_per_s"] / 1e6)


def test_a_model_that_cannot_be_counted_trains_without_mfu(
    toy_data, tmp_path, monkeypatch, one_device, caplog
):
    monkeypatch.setattr(chips, "find", lambda kind: CHIP)

    def broken(*_):
        raise RuntimeError("no such primitive")

    monkeypatch.setattr(mfu, "step_flops", broken)
    runs.train(toy_data, tmp_path, total_steps=2)
    assert "mfu" not in runs.lines(tmp_path)[2]
    assert "no MFU: FLOPs cannot be counted (RuntimeError: no such primitive)" in caplog.text


def test_peak_is_that_of_all_devices_and_of_known_ones_only(monkeypatch):
    mesh = mesh_lib.make_mesh()
    assert mfu.peak_flops(mesh, "float32") is None
    monkeypatch.setattr(chips, "find", lambda kind: CHIP)
    assert mfu.peak_flops(mesh, "float32") == 8e6
    assert mfu.peak_flops(mesh, "float64") is None


def test_memory_is_the_most_that_a_device_has_used(monkeypatch):
    assert mfu.memory_gib() is None

    class Device:
        def __init__(self, **told):
            self.told = told

        def memory_stats(self):
            return self.told

    devices = [Device(bytes_in_use=2**31), Device(peak_bytes_in_use=3 * 2**30, bytes_in_use=5)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert mfu.memory_gib() == 3.0
