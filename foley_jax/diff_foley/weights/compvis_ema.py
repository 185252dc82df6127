"""The averaged weights in a CompVis training checkpoint."""

from collections.abc import Mapping

import numpy as np

_MODEL, _AVERAGED = "model.", "model_ema."


def averaged(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Puts every `model_ema.` tensor in the place of the `model.` tensor it averages.

    The averages' names are those of the U-Net's tensors without any dots. A diffusers folder, whose
    files are averaged or not as a whole, passes unchanged.

    Raises:
      ValueError: the file holds no averages, or not of every tensor.
    Source: CompVis latent-diffusion ema.LitEma.
    """
    if "unet.conv_in.weight" in state:
        return dict(state)
    taken = {key: value for key, value in state.items() if not key.startswith(_AVERAGED)}
    missing = []
    for key in taken:
        if key.startswith(_MODEL):
            copy = _AVERAGED + key.removeprefix(_MODEL).replace(".", "")
            if copy in state:
                taken[key] = state[copy]
            else:
                missing.append(key)
    if missing:
        shown = ", ".join(missing[:3]) + (" and more" if len(missing) > 3 else "")
        raise ValueError(
            f"no averaged (EMA) copy of {len(missing)} tensors ({shown}); this file holds only one "
            "set of weights (or too few averages): convert it without --ema"
        )
    return taken
