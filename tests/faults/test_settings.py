"""Settings that are not finite or out of range are refused before anything is loaded or read."""

import math

import filled
import numpy as np
import pytest
import tiny_foley

from data_prep import clip_making, prepare
from foley_jax import generate, sample
from foley_jax.diff_foley.sampling import settings as settings_lib
from foley_jax.diffusion import schedule
from foley_jax.diffusion.samplers import zero_shot
from foley_jax.evaluation import __main__ as evaluation_command
from foley_jax.media import specs
from foley_jax.mm_diffusion.sampling import settings as sounding_settings
from tests.mm_diffusion import sounding_config

NOT_FINITE = (math.nan, math.inf, -math.inf, 1e39)  # the last one is none in float32
NO_NUMBER = ("2", None, True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tiny_foley.save_runs(tmp_path_factory.mktemp("runs"))
    filled.save_run(folder / "mm", sounding_config.tiny())
    return folder


def _refused(kind, name, value):
    with pytest.raises(ValueError, match=rf"^{name} is .*expected"):
        kind(**{name: value})


@pytest.mark.parametrize("value", [*NOT_FINITE, *NO_NUMBER, np.float32(np.nan)], ids=repr)
@pytest.mark.parametrize("name", ["guidance", "alignment", "steps", "num_samples", "cache_depth"])
def test_foley_settings_are_finite_numbers(name, value):
    _refused(settings_lib.Settings, name, value)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("steps", v) for v in (0, -3, 2.5, 25.0)),
        *(
            (name, v)
            for name in ("num_samples", "keep_best", "cache_interval")
            for v in (0, -1, 1.5)
        ),
        *(("alignment", v) for v in (-1e-9, -50)),
    ],
)
def test_foley_settings_are_in_range(name, value):
    _refused(settings_lib.Settings, name, value)


@pytest.mark.parametrize("value", [*NOT_FINITE, "2", True], ids=repr)
@pytest.mark.parametrize("name", ["steps", "scale", "sr_steps"])
def test_sounding_settings_are_finite_numbers(name, value):
    _refused(sounding_settings.Settings, name, value)


@pytest.mark.parametrize(
    "name, value", [("steps", 1), ("steps", -2), ("sr_steps", 0), ("scale", -0.1), ("steps", 20.0)]
)
def test_sounding_settings_are_in_range(name, value):
    _refused(sounding_settings.Settings, name, value)


def test_settings_of_numpy_become_pythons_own():
    settings = settings_lib.Settings(guidance=np.float32(2.5), steps=np.int64(4))
    assert type(settings.guidance) is float and type(settings.steps) is int
    assert sounding_settings.Settings(scale=np.float64(1), steps=None).scale == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, -4], ids=repr)
@pytest.mark.parametrize(
    "kind, name",
    [
        (specs.VideoSpec, "fps"),
        (specs.VideoSpec, "height"),
        (specs.AudioSpec, "sample_rate_hz"),
        (specs.AudioSpec, "hop"),
        (specs.AudioSpec, "fmax_hz"),
    ],
)
def test_specs_of_configs_are_finite_and_positive(kind, name, value):
    _refused(kind, name, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, -4], ids=repr)
@pytest.mark.parametrize("name", ["fps", "size", "sample_rate_hz", "clip_seconds"])
def test_formats_of_shards_are_finite_and_positive(name, value):
    usual = {"fps": 4.0, "size": 16, "sample_rate_hz": 16000, "clip_seconds": 2.0}
    _refused(lambda **own: clip_making.Format(**{**usual, **own}), name, value)


def test_diffusion_takes_no_number_that_is_none():
    with pytest.raises(ValueError, match="strength is nan"):
        zero_shot.Guidance(strength=math.nan)
    with pytest.raises(ValueError, match="strength is inf"):
        zero_shot.Guidance(strength=math.inf)
    with pytest.raises(ValueError, match="betas have shape"):
        schedule.linear(beta_end=math.nan)


def _never(*args, **options):
    raise AssertionError("something was loaded or read")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e39", "much"])
@pytest.mark.parametrize("name", ["guidance", "alignment", "scale"])
def test_commands_of_generation_take_no_such_number(name, text, monkeypatch, capsys):
    monkeypatch.setattr(sample, "load", _never)
    commands = [sample.main] if name == "scale" else [sample.main, generate.main]
    for command in commands:
        with pytest.raises(SystemExit) as stopped:
            command(["a.mp4", "--model=none", f"--{name}={text}"])
        last = capsys.readouterr().err.splitlines()[-1]
        assert stopped.value.code == 2
        assert f"--{name}: it is " in last and "expected a finite number" in last


@pytest.mark.parametrize("name", ["fps", "clip_seconds", "limit_s"])
@pytest.mark.parametrize("text", ["nan", "inf"])
def test_commands_of_preparation_take_no_such_number(name, text, tmp_path, capsys):
    with pytest.raises(SystemExit):
        prepare.main([str(tmp_path), str(tmp_path / "shards"), f"--{name}={text}"])
    assert "expected a finite number" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()


def test_evaluation_takes_no_such_number(capsys):
    common = ["--protocol=onsets", "--reference=a", "--out=b"]
    for argument in ("--guidance=nan", "--seconds=inf", "--samples=0"):
        with pytest.raises(SystemExit):
            evaluation_command.main([*common, argument])
        assert "expected a" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, value, complaint",
    [
        ("ldm", "--steps=1", "steps is 1, expected a whole number of at least 2"),
        ("ldm", "--alignment=-1", "alignment is -1.0, expected a finite number of at least 0"),
        ("ldm", "--cache_interval=0", "cache_interval is 0"),
        ("mm", "--steps=1", "steps is 1, expected a whole number of at least 2"),
        ("mm", "--sr_steps=0", "sr_steps is 0, expected a whole number of at least 1"),
        ("mm", "--scale=-1", "scale is -1.0"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(
    name, value, complaint, runs, monkeypatch, capsys
):
    monkeypatch.setattr(sample, "load", _never)
    arguments = ["missing.mp4", f"--model={runs / name}", value]
    for command in [sample.main] if name == "mm" else [sample.main, generate.main]:
        assert command(arguments) == 1
        printed = capsys.readouterr().err
        assert complaint in printed and printed.count("\n") == 1


@pytest.mark.slow
def test_more_steps_than_the_diffusion_has_are_refused_before_a_file_is_read(
    runs, monkeypatch, tmp_path
):
    foley, sounding_video = sample.load(runs / "ldm"), sample.load(runs / "mm")
    monkeypatch.setattr(foley, "read", _never)
    monkeypatch.setattr(sounding_video, "read_video", _never)
    with pytest.raises(
        ValueError, match="steps is 1, expected .* at least 2: fewer are for models"
    ):
        foley(tmp_path / "a.mp4", steps=1)
    for sampler in ("dpm_solver", "ddim", "plms"):
        with pytest.raises(ValueError, match="steps is 2000, expected .* from 2 to 1000"):
            foley(tmp_path / "a.mp4", steps=2000, sampler=sampler)
    with pytest.raises(ValueError, match="1000 steps from index 1 do not fit"):
        foley(tmp_path / "a.mp4", steps=1000, sampler="ddim")
    with pytest.raises(ValueError, match="steps is 5000"):
        sounding_video.audio_for(tmp_path / "a.mp4", steps=5000)
    with pytest.raises(ValueError, match="steps is 5000"):
        sounding_video.generate(steps=5000)
