"""How one official PyTorch checkpoint maps onto one of our modules: data only, no torch.

`foley_jax.convert` is the engine that reads these descriptions; each system lists its own in its
`weights.py`.
"""

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path
from typing import Any

from flax import nnx
import numpy as np

StateDict = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Writing:
    """What the tables of reading do not say, and writing a checkpoint needs.

    Attributes:
      container: name of the dict inside the official file that holds the weights; "" is none.
      kernel_axes: pairs (regex, number); an official weight whose name fully matches has so many
        kernel axes; ours may have more or fewer of size 1. One axis of three is time, the first.
      transforms: pairs (regex, function); the inverse of `Checkpoint.transforms` but for the layout
        of kernels, which is PyTorch's already.
      never: regexes; the official network has no such name, though it would be read.
    """

    container: str = "state_dict"
    kernel_axes: tuple[tuple[str, int], ...] = ()
    transforms: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = ()
    never: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One kind of PyTorch checkpoint.

    Order of work: open `containers`, drop the names of wrappers (`interop/wrappers.py`) and `strip`
    prefixes, `averaged` (when asked for), fold weight norms, `prepare`, drop `ignore`d keys,
    `renames`, then leaf names and layouts by rule (see `foley_jax.convert`).

    Attributes:
      build: `build(model, rngs=rngs)` -> module, `model` being a ConfigDict of the next field.
      model: model fields of the official network; the converter's keyword overrides update them.
      stage: name of the file in configs/ whose paper variant ("NAME:VARIANT": that variant) is
        the config of the converted run, its `model` replaced by the fields above; "" for a part
        that is no run of its own.
      renames: (regex, replacement) pairs for `re.sub`, applied in order to every dotted PyTorch
        key; the result is our path with dots, but for the leaf: `down.0.conv.weight`.
      ignore: regexes, or pairs (regex, reason); a checkpoint key that fully matches one is not
        used, and the converter's report says why.
      init: regexes; one of our paths "a/b/0/kernel" that fully matches may stay as initialised.
      transforms: (regex, fn) pairs; `fn` takes the PyTorch array of a renamed key that fully
        matches and returns our layout, in place of the transposition by rank.
      strip: further prefixes removed from the front of every key, each as often as it stands
        there.
      containers: names of the dict inside the file that holds the weights, before the usual ones
        (`interop/torch_reader.py`); the first one found is opened, and without any the file itself
        is the state dict.
      folders: subfolders read when the source is a folder (diffusers); their keys get the
        folder's name as prefix, "unet.conv_in.weight". Empty: the folder's own files.
      signature: regexes; a state dict in which each fully matches some key may be of this kind
        (after `strip`). Empty: this kind is not recognised from a file.
      file_names: official names of the file, for the choice between kinds with the same keys and
        within a hub repository.
      averaged: puts the averaged (EMA) copies of a state dict in place of the last weights;
        None: files of this kind hold no averages.
      read: reads a source that is no PyTorch file, official names -> arrays; None is from a source
        that is one after all. `transforms` bring its layout into ours.
      prepare: rewrites the whole state dict (fused tensors, other names); rarely needed.
      configure: contents of a config.json that lies with the weights in a folder (Hugging Face) ->
        fields of `model`; raises ValueError of what the module cannot be. None: it is not read.
      writing: how a module of ours becomes such a checkpoint (`interop/torch_writer.py`); None:
        that is not known.
    """

    build: Callable[..., nnx.Module]
    model: Mapping[str, Any]
    stage: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    ignore: tuple[str | tuple[str, str], ...] = ()
    init: tuple[str, ...] = ()
    transforms: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = ()
    strip: tuple[str, ...] = ()
    containers: tuple[str, ...] = ("state_dict",)
    folders: tuple[str, ...] = ()
    signature: tuple[str, ...] = ()
    file_names: tuple[str, ...] = ()
    averaged: Callable[[StateDict], StateDict] | None = None
    read: Callable[[Path], StateDict | None] | None = None
    prepare: Callable[[StateDict], StateDict] | None = None
    configure: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    writing: Writing | None = None
