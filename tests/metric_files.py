"""Files of av-benchmark's networks in their official formats, with the goldens' seeded weights.

    python tests/metric_files.py FOLDER [NAME ...]

writes those that are named (all are 7 GB) under their published names, with every key of the
official file. Weights have the gain of the "_g" goldens: plain ones make outputs that hardly depend
on the input. What no metric reads of a file (four of ImageBind's six modalities) is zeros that take
no room.
"""

from collections.abc import Callable, Mapping
import json
import pathlib
import re
import sys

import encoder_goldens
from goldens import fill
import network_goldens
import numpy as np
import torch

# name of the goldens -> (published name, what its publisher writes around the state dict)
FILES: Mapping[str, tuple[str, Callable[[dict], dict]]] = {
    "vggish": ("vggish-10086976.pth", lambda state: state),
    "panns_cnn14_16k": (
        "Cnn14_16k_mAP=0.438.pth",
        lambda state: {"iteration": 660000, "model": state},
    ),
    "passt": ("passt-s-f128-p16-s10-ap.476-swa.pt", lambda state: state),
    "synchformer": ("synchformer_state_dict.pth", lambda state: state),
    "imagebind": ("imagebind_huge.pth", lambda state: state),
    "laion_clap": (
        "music_speech_audioset_epoch_15_esc_89.98.pt",
        lambda state: {
            "epoch": 15,
            "name": "HTSAT-base",
            "state_dict": {f"module.{key}": value for key, value in state.items()},
        },
    ),
    "ms_clap": ("CLAP_weights_2023.pth", lambda state: {"model": state}),
}
_ENCODERS = ("passt", "synchformer", "imagebind")  # whose gain treats tokens apart
_UNREAD = r"modality_\w+\.(text|depth|thermal|imu)\..*"
_FOLDERS = {"roberta-base": "roberta_vocab", "gpt2": "gpt2_vocab"}


def _value(name: str, key: str, shape: list[int], dtype: str) -> torch.Tensor:
    kind = getattr(torch, dtype.removeprefix("torch."))
    if re.fullmatch(_UNREAD, key) or (not shape and name == "imagebind" and "audio" not in key):
        return torch.zeros(shape, dtype=kind)  # of which an expanded tensor would be refused
    if not fill.is_filled(key, shape, dtype.removeprefix("torch.")):
        return torch.full(shape, np.log(20.0) if name == "imagebind" else 0, dtype=kind)
    value = fill.fill_value(key, shape, f"public/{name}:")
    if name in _ENCODERS:
        value = encoder_goldens.gained(value)
    elif value.ndim >= 2:
        value *= network_goldens.GAIN
    return torch.from_numpy(value)


def write(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Writes the file of one network; returns its path."""
    file, wrap = FILES[name]
    keys = json.loads((network_goldens.GOLDENS / f"{name}_keys.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(wrap({key: _value(name, key, *rest) for key, rest in keys.items()}), folder / file)
    return folder / file


def write_vocabularies(folder: pathlib.Path) -> None:
    """Writes the made-up vocabularies of the goldens where the CLAP scores look for them."""
    golden = json.loads((network_goldens.GOLDENS / "bpe.json").read_text())
    for name, vocabulary in _FOLDERS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "vocab.json").write_text(json.dumps(golden[vocabulary]))
        merges = "\n".join(["#version: 0.2", *golden["merges"], ""])
        (folder / name / "merges.txt").write_text(merges)


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1])
    write_vocabularies(place)
    for wanted in sys.argv[2:] or FILES:
        print(write(place, wanted))
