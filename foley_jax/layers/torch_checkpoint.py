"""How one official PyTorch checkpoint maps onto one of our modules: data only, no torch.

`foley_jax.convert` is the engine that reads these descriptions; each system lists its own in its
`weights.py`.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from flax import nnx
import ml_collections
import numpy as np

StateDict = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One kind of PyTorch checkpoint.

    Order of work: open `containers`, drop `strip` prefixes, drop `ignore`d keys, `prepare`,
    `renames`, then leaf names and layouts by rule (see `foley_jax.convert`).

    Attributes:
      build: `build(config, rngs=rngs)` -> module; `config` is a ConfigDict of the next field.
      config: plain dict saved beside the converted weights in the form of a run's config:
        {"task": ..., "model": {...}}; keyword overrides of the converter update its "model".
      renames: (regex, replacement) pairs for `re.sub`, applied in order to every dotted PyTorch
        key; the result is our path with dots, but for the leaf: `down.0.conv.weight`.
      ignore: regexes; a checkpoint key that fully matches one (after `strip`) is not used.
      init: regexes; one of our paths "a/b/kernel" that fully matches stays freshly initialised.
      transforms: (regex, fn) pairs; `fn` takes the PyTorch array of a renamed key that fully
        matches and returns our layout, in place of the transposition by rank.
      strip: prefixes removed from the front of every key, each as often as it stands there.
      containers: names of the dict inside the file that holds the weights; the first one found
        is opened, and without any the file itself is the state dict.
      prepare: rewrites the whole state dict (fused or weight-normalised tensors); rarely needed.
    """

    build: Callable[..., nnx.Module]
    config: Mapping[str, Any]
    renames: tuple[tuple[str, str], ...] = ()
    ignore: tuple[str, ...] = ()
    init: tuple[str, ...] = ()
    transforms: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = ()
    strip: tuple[str, ...] = ("module.",)
    containers: tuple[str, ...] = ("state_dict",)
    prepare: Callable[[StateDict], StateDict] | None = None

    def run_config(self, **model_overrides: Any) -> ml_collections.ConfigDict:
        """Config of the converted model, its "model" part updated by `model_overrides`."""
        config = ml_collections.ConfigDict(dict(self.config))
        unknown = sorted(set(model_overrides) - set(config.model.keys()))
        if unknown:
            known = ", ".join(sorted(config.model.keys()))
            raise ValueError(f"unknown model fields {unknown}; this kind has: {known}")
        config.model.update(model_overrides)
        return config
