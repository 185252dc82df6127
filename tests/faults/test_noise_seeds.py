"""One rule for seeds: every one of 2**64 has its own noise, the same in every command."""

import hashlib
import math

import filled
import jax
import ml_collections
import numpy as np
import pytest
import tiny_foley

from data_prep import features as features_command
from data_prep import prepare, scenes
from foley_jax import generate, sample
from foley_jax.data import pipeline as data_pipeline
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.diff_foley.sampling import settings as settings_lib
from foley_jax.evaluation import __main__ as evaluation_command
from foley_jax.inference import many
from foley_jax.mm_diffusion.sampling import settings as sounding_settings
from foley_jax.runtime import init_rng, limits, seed_keys
from foley_jax.training import loop
from tests.mm_diffusion import sounding_config

pytestmark = pytest.mark.usefixtures("quick_compilation")

FAR = (0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63, 2**64 - 1)
REFUSED = (-1, 2**64, -(2**63), 1.0, math.nan, math.inf, "0", None, True, np.float32(1))


@pytest.fixture(scope="module")
def foley(tmp_path_factory):
    return sample.load(tiny_foley.save_runs(tmp_path_factory.mktemp("runs")) / "ldm")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return tiny_foley.write_videos(tmp_path_factory.mktemp("videos"), (0.9, 1.0))


@pytest.fixture(scope="module")
def sounding_video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mm")
    filled.save_run(folder / "mm", sounding_config.tiny())
    return sample.load(folder / "mm")


def test_every_seed_has_a_key_of_its_own():
    keys = {seed_keys.block_keys(seed, "clip", k, 2).tobytes() for seed in FAR for k in (0, 1, 2)}
    assert len(keys) == 3 * len(FAR)
    whole = {jax.random.key_data(init_rng.key(seed)).tobytes() for seed in FAR}
    assert len(whole) == len(FAR)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_seeds_of_32_bits_keep_their_noise(seed):
    want = jax.random.key_data(jax.random.key(seed))
    np.testing.assert_array_equal(jax.random.key_data(seed_keys.key(seed)), want)
    named = jax.random.fold_in(jax.random.key(seed), 0xB5E5B25A)  # CRC-32 of "clip 1"
    want = jax.random.key_data(jax.random.split(jax.random.fold_in(named, 3), 2))
    np.testing.assert_array_equal(seed_keys.block_keys(seed, "clip 1", 3, 2), want)


def test_noise_is_that_of_earlier_versions():
    assert seed_keys.block_keys(3, "clip", 1, 2).tolist() == [
        [3173875013, 190120276],
        [3482661118, 3070158907],
    ]
    assert jax.random.key_data(init_rng.key(5)).tolist() == [2149570863, 2284082161]


@pytest.mark.parametrize("seed", REFUSED, ids=repr)
def test_what_is_no_seed_is_refused_everywhere(seed, tmp_path):
    def made_set(seed):
        scenes.make_set(tmp_path, {}, seed, 1)

    format = prepare.clip_making.Format(4.0, 16, 16000, 2.0)
    for read in (
        lambda seed: settings_lib.Settings(seed=seed),
        lambda seed: sounding_settings.Settings(seed=seed),
        seed_keys.key,
        init_rng.key,
        made_set,
        lambda seed: prepare.prepare(tmp_path, tmp_path / "shards", format, seed=seed),
    ):
        with pytest.raises(ValueError, match="seed is .*, expected a whole number from 0 to 1844"):
            read(seed)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, math.nan])
def test_a_training_is_not_begun_with_what_is_no_seed(seed):
    config = ml_collections.ConfigDict({"seed": seed, "ema_decay": 0.0})
    with pytest.raises(ValueError, match="config.seed is .*, expected a whole number from 0 to"):
        loop.maker_of(None, config, None)


@pytest.mark.parametrize("text", ["-1", "18446744073709551616", "1.5", "nan", "1e3", ""])
def test_commands_refuse_what_is_no_seed(text, tmp_path, capsys):
    given = f"--seed={text}"
    model = f"--model={tmp_path / 'none'}"
    for command, arguments in (
        (sample.main, ["a.mp4", model]),
        (generate.main, ["a.mp4", model]),
        (evaluation_command.main, ["--protocol=onsets", "--reference=a", "--out=b"]),
        (prepare.main, ["videos", str(tmp_path / "shards")]),
        (features_command.main, ["shards", "out", model]),
        (scenes.main, [str(tmp_path / "scenes")]),
    ):
        with pytest.raises(SystemExit) as stopped:
            command([*arguments, given])
        last = capsys.readouterr().err.splitlines()[-1]
        assert stopped.value.code == 2 and "--seed: seed is" in last and "from 0 to" in last
    assert not list(tmp_path.iterdir())


def test_numpys_numbers_are_seeds_and_become_pythons_own():
    settings = settings_lib.Settings(seed=np.uint64(2**64 - 1), steps=np.int32(3))
    assert type(settings.seed) is int and settings.seed == 2**64 - 1 and type(settings.steps) is int


@pytest.mark.slow
def test_far_seeds_audio_different(foley, videos):
    mels = [foley(videos[0], seed=seed, steps=2).mel_FT for seed in (0, 2**32, 2**63, 2**64 - 1)]
    for i, mel_FT in enumerate(mels):
        assert all(np.abs(mel_FT - other).max() > 0.01 for other in mels[:i])


def test_sample_k_is_the_same_in_every_command(foley, videos, tmp_path, monkeypatch):
    """`generate`, `sample` and Python make the same samples of a seed."""
    made = {}

    def add(self, name, video, takes, add=many.SeedFolders.add):
        made.update({(name, take.index): take.clip for take in takes})
        add(self, name, video, takes)

    monkeypatch.setattr(many.SeedFolders, "add", add)
    settings = pipeline.Settings(steps=2, seed=9)
    report = generate.run(foley, videos, tmp_path, 2, settings=settings)
    assert [f.name for f in report.folders] == ["seed9_sample0", "seed9_sample1"]
    for video in videos:
        clips = foley(video, seed=9, steps=2, num_samples=2, keep_best=2)
        assert sorted(clip.sample for clip in clips) == [0, 1]
        for clip in clips:
            same = made[video.stem, clip.sample]
            np.testing.assert_allclose(same.mel_FT, clip.mel_FT, atol=1e-5)
            other = made[video.stem, 1 - clip.sample]
            assert np.abs(other.mel_FT - clip.mel_FT).max() > 0.01


def test_runs_of_neighbouring_seeds_share_nothing(foley, videos, tmp_path, monkeypatch):
    """Sample 1 of seed 0 was the audio, and the folder, of sample 0 of seed 1."""
    folders, mels = [], {}

    def add(self, name, video, takes, add=many.SeedFolders.add):
        mels.update({(self.folders[t.index].name, name): t.clip.mel_FT for t in takes})
        add(self, name, video, takes)

    monkeypatch.setattr(many.SeedFolders, "add", add)
    for seed in (0, 1):
        settings = pipeline.Settings(steps=2, seed=seed)
        folders += generate.run(foley, videos[:1], tmp_path, 2, settings=settings).folders
    assert len(set(folders)) == 4 and len(mels) == 4
    everyone = list(mels.values())
    for i, mel_FT in enumerate(everyone):
        assert all(np.abs(mel_FT - other).max() > 0.01 for other in everyone[:i])


def test_a_sounding_clip_depends_on_seed_and_number_alone(sounding_video, monkeypatch):
    """Its keys do: of the noise, and with every other seed, of the windows' shifts."""

    def keys(count, seed):
        """({name of clip: key}, key of the shifts), of clips that nobody computes."""
        seen = []

        def program(keys_B, shift_key, known):
            seen.append(np.asarray(jax.random.key_data(keys_B)))
            seen.append(np.asarray(jax.random.key_data(shift_key)))
            shapes = sounding_video.model._about.shapes
            return {n: np.zeros((len(keys_B), *s.shape[1:])) for n, s in shapes.items()}

        monkeypatch.setattr(sounding_video.model, "_program", lambda settings: program)
        sounding_video.generate(count, seed=seed)
        return [key.tobytes() for key in seen[0]][:count], seen[1].tobytes()

    three, shift = keys(3, 5)
    assert len(set(three)) == 3 and keys(1, 5) == (three[:1], shift)
    assert keys(3, np.int64(5)) == (three, shift)
    for seed in (6, 2**32 + 5, 2**63 + 5):
        others, other_shift = keys(3, seed)
        assert not {*three, shift} & {*others, other_shift}


def test_data_come_in_another_order_for_every_seed():
    def order(seed):
        batches = data_pipeline.make_iterator(
            range(64),
            lambda source, index, rng: {"index": np.int64(index), "draw": rng.integers(2**62)},
            global_batch=64,
            seed=seed,
            position=0,
            process_index=0,
            process_count=1,
        )
        first = next(batches)
        return hashlib.sha256(first["index"].tobytes() + first["draw"].tobytes()).hexdigest()

    assert len({order(seed) for seed in FAR}) == len(FAR)


def test_scenes_of_every_seed_differ(tmp_path, monkeypatch):
    drawn = set()

    def make(level, seconds, rng):
        drawn.add(int(rng.integers(2**62)))
        raise StopIteration

    monkeypatch.setattr(scenes.scene_plan, "make", make)
    for seed in FAR:
        with pytest.raises(StopIteration):
            scenes.write_scene(tmp_path, "train", "plain", 0, seed)
    assert len(drawn) == len(FAR)


def test_the_largest_seed_is_named_by_the_limit():
    assert limits.seed(2**64 - 1) == 2**64 - 1
    with pytest.raises(ValueError, match="18446744073709551615"):
        limits.seed(2**64)
