"""Public checkpoints of the networks behind the metrics: names only.

See `layers/torch_checkpoint.py` for the fields and `foley_jax/convert.py` for the engine.
"""

import functools

from foley_jax.evaluation.networks import vggish
from foley_jax.layers import configured, torch_checkpoint

Checkpoint = torch_checkpoint.Checkpoint

# official place in the Sequential -> ours
_VGGISH_CONVS = {0: 0, 3: 1, 6: 2, 8: 3, 11: 4, 13: 5}


KINDS: dict[str, Checkpoint] = {
    # vggish-10086976.pth of torchvggish
    "vggish": Checkpoint(
        build=functools.partial(configured.build, vggish.Vggish),
        model=configured.defaults(vggish.Vggish),
        renames=(
            *((rf"^features\.{a}\.", f"convs.{b}.") for a, b in _VGGISH_CONVS.items()),
            *((rf"^embeddings\.{2 * i}\.", f"dense.{i}.") for i in range(3)),
        ),
        ignore=((r"pproc\..*", "PCA of the AudioSet release; distances use raw embeddings"),),
        signature=(r"features\.13\.weight", r"embeddings\.4\.weight"),
        file_names=("vggish-10086976.pth",),
    ),
}
