"""MMAudio behind `sample.load` and the command line: folders of released files, clips, batches."""

import dataclasses
import json

import filled
import mmaudio_goldens
import numpy as np
import pytest
import torch

from foley_jax import sample
from foley_jax.inference import load, load_mmaudio, text_foley
from foley_jax.interop import registry
from tests.media import media_files
from tests.mmaudio import flow_records, tiny_mmaudio

pytestmark = pytest.mark.usefixtures("quick_compilation")
FILES = ("v1-16.pth", "best_netG.pt", "synchformer_state_dict.pth", "open_clip_pytorch_model.bin")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Released files, as far as their names go; the networks are tiny."""
    folder = tmp_path / "official"
    (folder / "ext_weights").mkdir(parents=True)
    (folder / "weights").mkdir()
    (folder / "weights" / "mmaudio_small_16k.pth").touch()
    for name in FILES:
        (folder / "ext_weights" / name).touch()
    own = tiny_mmaudio.networks()

    def network(kind, path, dtype):
        assert path.is_file() and dtype == "float32"
        return own[kind]

    monkeypatch.setattr(load_mmaudio.files, "network", network)
    monkeypatch.setattr(load_mmaudio.tokens, "find_merges", lambda folders: folders[0])
    monkeypatch.setattr(load_mmaudio.tokens, "Tokenizer", lambda path: tiny_mmaudio.Tokenizer())
    return folder


@pytest.mark.slow
def test_a_folder_is_loaded_and_its_licence_is_said(folder, capsys):
    assert load.system_of(folder) == "mmaudio"
    foley = sample.load(folder)
    assert isinstance(foley, sample.TextFoley)
    assert "CC-BY-NC 4.0" in capsys.readouterr().err
    clip = foley(text="waves", duration=0.7, steps=1)
    assert clip.sample_rate == 16000 and len(clip.audio) == 11200
    with pytest.raises(ValueError, match="without a video; save it as .wav"):
        clip.save(folder / "a.mp4")
    with pytest.raises(ValueError, match="neither a video nor a text"):
        foley()


@pytest.mark.slow
def test_a_run_is_loaded_with_the_parts_that_it_names(folder, tmp_path):
    """The flow network is the run's own, windows are those that it was trained on."""
    config = flow_records.config("unused", parts=str(folder))
    run = filled.save_run(tmp_path / "run", config)
    assert load.system_of(run) == "mmaudio"
    foley = sample.load(run)
    assert isinstance(foley, sample.TextFoley)
    assert foley.model.window.lengths.latents == flow_records.N
    own = filled.model(config).t_embed.first.kernel[...]
    np.testing.assert_array_equal(foley.model.flow.module().t_embed.first.kernel[...], own)
    assert len(foley(text="waves", duration=0.7, steps=1).audio) == 11200


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_released_file_is_a_network_of_the_wanted_type(tmp_path, monkeypatch, dtype):
    """The small official network in the place of the released one, in the released format."""
    kind, path = "mmaudio/small_16k", tmp_path / "mmaudio_small_16k.pth"
    released = registry.lookup(kind)
    small = dataclasses.replace(released, model={**released.model, **mmaudio_goldens.TINY})
    monkeypatch.setattr(registry, "kinds", lambda: {kind: small})
    state = mmaudio_goldens.state("tiny", "tiny")
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, path)
    module = load_mmaudio.files.network(kind, path, dtype).module()
    x = mmaudio_goldens.tiny_inputs("tiny")

    def flow(model, x):
        told = model.preprocess_conditions(x["clip"], x["sync"], x["text"])
        return model.predict_flow(x["latent"], x["t"], told)

    error = mmaudio_goldens.distance(
        mmaudio_goldens.run(module, flow, x), mmaudio_goldens.golden("tiny")["flow"]
    )
    # bfloat16 has 8 bits
    assert error <= 1e-5 if dtype == "float32" else 1e-3 < error < 5e-2


def test_networks_of_others_are_refused(folder):
    with pytest.raises(ValueError, match="MMAudio's, which has no cavp and no vocoder"):
        sample.load(folder, cavp="runs/cavp", vocoder="runs/vocoder")


def test_what_is_missing_or_too_much_is_named(folder):
    (folder / "ext_weights" / "v1-16.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no v1-16\.pth"):
        sample.load(folder)
    (folder / "mmaudio_large_44k_v2.pth").touch()
    with pytest.raises(ValueError, match="several flow networks; give one of .*large_44k_v2"):
        sample.load(folder)


def test_without_encoders_there_is_text_without_video_or_nothing(folder, tmp_path):
    for name in FILES[2:]:
        (folder / "ext_weights" / name).unlink()
    foley = sample.load(folder)
    with pytest.raises(ValueError, match="text needs CLIP's network"):
        foley(text="waves")
    with pytest.raises(ValueError, match="needs CLIP and Synchformer"):
        foley(media_files.write(tmp_path / "a.mp4", audio=False))


@pytest.mark.slow
def test_the_command_makes_files_and_goes_on_where_it_stopped(folder, tmp_path, capsys):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    media_files.write(videos / "a.mp4", audio=False)
    (videos / "broken.mp4").write_bytes(b"nothing")
    command = [str(videos), f"--model={folder}", f"--out={out}", "--steps=1", "--text=waves"]
    assert sample.main(command) == 1  # one of them is broken
    assert "broken.mp4" in capsys.readouterr().err
    assert {p.name for p in out.iterdir()} >= {"a.wav", "a.mp4", "a.png", "scores.json"}
    before = (out / "a.wav").stat().st_mtime_ns
    (videos / "broken.mp4").unlink()
    assert sample.main(command) == 0
    assert (out / "a.wav").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_command_makes_audio_of_a_text_alone(folder, tmp_path):
    out = tmp_path / "out"
    common = [f"--model={folder}", f"--out={out}", "--steps=1", "--duration=0.7"]
    assert sample.main([*common, "--text=waves / on a beach!"]) == 0
    assert (out / "waves_on_a_beach.wav").is_file() and (out / "waves_on_a_beach.png").is_file()
    assert not list(out.glob("*.mp4"))
    assert json.loads((out / "scores.json").read_text())
    assert sample.main(common) == 1  # neither


def test_names_of_texts_are_names_of_files():
    assert text_foley.text_name("a/b: \N{DOG FACE} c") == "a_b_c"
    assert text_foley.text_name("///") == "text"
    assert len(text_foley.text_name("word " * 99)) == 60


def test_the_same_seed_gives_the_same_audio(folder):
    foley = sample.load(folder)
    one, two = (foley(text="waves", duration=0.7, steps=1, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.audio, two.audio)
