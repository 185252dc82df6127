"""Traced programs on disk: found again, never in the place of others, and no harm when damaged."""

import os
from typing import NamedTuple

import filled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_foley

from foley_jax import sample
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.runtime import export_cache, network
from tests.mm_diffusion import sounding_config


class Pair(NamedTuple):
    one: jax.Array
    other: jax.Array


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(export_cache.SWITCH)
    export_cache.turn_on(tmp_path)
    yield tmp_path
    export_cache.turn_off()


def _program(traces, name="a", factor=2.0):
    """A program that notes when it is traced."""

    def run(state, pair, offset):
        traces.append(name)
        return {"sum": factor * state["w"] @ pair.one + offset}, pair.other

    return export_cache.Program(run, name)


def _arguments(rows=3, dtype=np.float32):
    pair = Pair(np.ones((4, rows), dtype), np.arange(2, dtype=dtype))
    return {"w": jnp.ones((2, 4))}, pair, np.float32(1.0)


def test_a_program_is_traced_once_for_all_processes(folder):
    traces = []
    for _ in range(2):  # each as a process would make it
        program = _program(traces)
        for _ in range(2):
            made, other = program(*_arguments())
            np.testing.assert_array_equal(made["sum"], np.full((2, 3), 9.0))
            np.testing.assert_array_equal(other, [0, 1])
    assert traces == ["a"] and len(list(folder.iterdir())) == 1


def test_what_differs_is_another_program(folder, monkeypatch):
    """Names, shapes, types, structures, options, versions, source, devices."""
    traces = []
    _program(traces)(*_arguments())

    def count(program, arguments):
        before = len(traces)
        program(*arguments)
        return len(traces) - before

    assert count(_program(traces, "b", 3.0), _arguments()) == 1
    assert count(_program(traces), _arguments(rows=5)) == 1
    assert count(_program(traces), _arguments(dtype=np.int32)) == 1
    state, pair, offset = _arguments()
    assert count(_program(traces), ({**state, "v": offset}, pair, offset)) == 1
    with jax.numpy_dtype_promotion("strict"):
        assert count(_program(traces), _arguments()) == 1
    assert count(_program(traces), _arguments()) == 0
    known = export_cache._code()
    monkeypatch.setattr(export_cache, "_code", lambda: ("other source", *known[1:]))
    assert count(_program(traces), _arguments()) == 1


def test_an_edited_source_file_is_another_source(tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    file = tmp_path / "package" / "layer.py"
    monkeypatch.setattr(export_cache, "__file__", str(tmp_path / "package" / "trace_cache.py"))
    digests = []
    for text in ("x = 1\n", "x = 2\n", "x = 1\n"):
        file.write_text(text)
        digests.append(export_cache._code.__wrapped__())
    assert digests[0] == digests[2] != digests[1]


def test_a_damaged_file_is_written_again(folder):
    traces = []
    _program(traces)(*_arguments())
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    for damaged in (whole[:-10], whole[:100] + b"x" + whole[101:], b""):
        entry.write_bytes(damaged)
        made, _ = _program(traces)(*_arguments())
        np.testing.assert_array_equal(made["sum"], np.full((2, 3), 9.0))
        assert len(entry.read_bytes()) == len(whole)
    assert len(traces) == 4 and list(folder.iterdir()) == [entry]


def test_what_cannot_be_kept_runs_all_the_same(folder, capsys):
    def run(x):
        return Pair(x, x + 1)  # no type that may be written

    program = export_cache.Program(run, "a")
    for _ in range(2):
        assert [float(x) for x in program(jnp.float32(1.0))] == [1.0, 2.0]
    error = capsys.readouterr().err
    assert error.startswith("warning: a traced program is not kept") and error.count("\n") == 1
    assert not list(folder.iterdir())


def test_a_full_disk_leaves_nothing_behind(folder, capsys, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    made, _ = _program([])(*_arguments())
    np.testing.assert_array_equal(made["sum"], np.full((2, 3), 9.0))
    assert "No space left on device" in capsys.readouterr().err and not list(folder.iterdir())


def test_old_ones_go_and_a_switch_turns_it_off(folder, monkeypatch):
    traces = []
    _program(traces)(*_arguments())
    (entry,) = folder.iterdir()
    export_cache.turn_on(folder)
    assert entry.exists()
    os.utime(entry, (0, 0))
    _program(traces)(*_arguments())  # its use counts
    export_cache.turn_on(folder)
    assert entry.exists() and len(traces) == 1
    os.utime(entry, (0, 0))
    export_cache.turn_on(folder)
    assert not entry.exists()
    export_cache.turn_off()
    monkeypatch.setenv(export_cache.SWITCH, "0")
    export_cache.turn_on(folder)
    _program(traces)(*_arguments())
    assert not list(folder.iterdir())


def _three_times(make, folder, monkeypatch):
    """Made without traces, with none there, and with all; how many programs are kept."""
    traced = []
    whole = network.Network.module

    def module(self, state=None):
        if state is not None:
            traced.append(self)
        return whole(self, state)

    monkeypatch.setattr(network.Network, "module", module)
    export_cache.turn_off()
    plain = make()
    export_cache.turn_on(folder)
    before, first = len(traced), make()
    assert len(traced) > before
    between, second = len(traced), make()
    assert len(traced) == between
    return plain, first, second, len(list(folder.iterdir()))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_audio_are_the_same_and_nothing_is_traced_again(folder, tmp_path_factory, monkeypatch):
    """All programs between a video and its audio but the vocoder's, as in three processes."""
    runs = tiny_foley.save_runs(tmp_path_factory.mktemp("runs"))
    (video,) = tiny_foley.write_videos(tmp_path_factory.mktemp("videos"), (4.0,))

    def make():
        foley = sample.load(runs / "ldm", classifier=runs / "alignment")
        settings = pipeline.Settings(steps=2)
        return foley.model.generate([foley.read(video)], settings)[0][0]

    plain, first, second, kept = _three_times(make, folder, monkeypatch)
    assert kept == 6
    np.testing.assert_array_equal(first.audio, second.audio)
    np.testing.assert_allclose(first.mel_FT, plain.mel_FT, atol=1e-5)
    assert second.scores == pytest.approx(plain.scores, abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_sounding_videos_are_the_same(folder, tmp_path_factory, monkeypatch):
    run = filled.save_run(tmp_path_factory.mktemp("runs") / "mm", sounding_config.tiny())
    plain, first, second, kept = _three_times(
        lambda: sample.load(run).generate(num_samples=1, steps=2), folder, monkeypatch
    )
    assert kept == 1
    for made in (first, second):
        np.testing.assert_array_equal(made[0].frames_THWC, plain[0].frames_THWC)
        np.testing.assert_allclose(made[0].audio, plain[0].audio, atol=1e-5)
