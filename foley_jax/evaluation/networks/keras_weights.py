"""YAMNet's variables under the names that the converter knows, from either of its releases.

Checkpoints number the layers (`layer_with_weights-2/depthwise_kernel`); the Keras file names them
(`layer2/depthwise_conv/depthwise_kernel:0`), and is HDF5, which h5py reads where it is installed.
"""

from collections.abc import Mapping
from pathlib import Path
import re

import numpy as np

from foley_jax.interop import tensorflow_bundle

# of the release that is unpacked into a folder of this name; the index stands for its shards
YAMNET_FILES = ("yamnet/variables/variables.index", "yamnet.h5", "yamnet.npz")
_NUMBERED = re.compile(r"(?:.*/)?layer_with_weights-(\d+)/(\w+)")
_NAMED = re.compile(r"(?:.*/)?layer(\d+)/(?:(depthwise|pointwise)_)?conv(/bn)?/(\w+)(?::0)?")
_NAMED_LOGITS = re.compile(r"(?:.*/)?logits/(kernel|bias)(?::0)?")
_LAST = 54  # numbered layer of the classes; before it convolutions and BatchNorms take turns
_LEAVES = {
    "kernel": "conv.kernel",
    "depthwise_kernel": "conv.kernel",
    "gamma": "bn.scale",
    "beta": "bn.bias",
    "moving_mean": "bn.mean",
    "moving_variance": "bn.var",
}


def read(path: Path) -> dict[str, np.ndarray] | None:
    """Variables of a SavedModel or checkpoint, of the Keras file, or of an .npz with the latter's.

    Raises:
      ValueError: a Keras file without h5py, or one that is none; the message says what to do.
      FileNotFoundError: no such file, or no checkpoint in a folder.
    """
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    if path.suffix in (".h5", ".hdf5"):
        return _read_hdf5(path)
    return tensorflow_bundle.read(path)


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """Every array of an HDF5 file by its full name."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            f"{path} is HDF5, which needs h5py ({error}): pip install h5py, or give the "
            "SavedModel's folder, or, where h5py is, copy the variables: found = {}; "
            "h5py.File(PATH).visititems(lambda name, x: found.update({name: x[()]}) if "
            "isinstance(x, h5py.Dataset) else None); numpy.savez('yamnet.npz', **found)"
        ) from error
    found: dict[str, np.ndarray] = {}

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    path.open("rb").close()  # h5py's own message of a missing file is longer and names less
    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}") from error
    return found


def prepare(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Variables by the names of our module; a BatchNorm without scale gets ones.

    Names that are none of YAMNet's stay as they are, for the converter to complain about.
    """
    found = {}
    for key, value in state.items():
        if key.removesuffix(":0").endswith("depthwise_kernel"):
            value = np.swapaxes(value, 2, 3)  # [3, 3, C, 1] -> [3, 3, 1, C]
        found[_name(key)] = value
    for key in [k for k in found if k.endswith("bn.bias")]:
        found.setdefault(key.replace("bn.bias", "bn.scale"), np.ones_like(found[key]))
    return found


def _name(key: str) -> str:
    if numbered := _NUMBERED.fullmatch(key):
        number, leaf = int(numbered[1]), numbered[2]
        if number <= _LAST:
            return f"logits.{leaf}" if number == _LAST else _of_place(number // 2, leaf)
    if logits := _NAMED_LOGITS.fullmatch(key):
        return f"logits.{logits[1]}"
    if named := _NAMED.fullmatch(key):
        layer, kind, _, leaf = named.groups()
        # layer1 is one unit, every later one two
        place = 0 if layer == "1" else 2 * int(layer) - (3 if kind == "depthwise" else 2)
        return _of_place(place, leaf)
    return key


def _of_place(place: int, leaf: str) -> str:
    return f"units.{place}.unit.{_LEAVES.get(leaf, leaf)}"
