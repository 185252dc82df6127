"""Names that training tools put into the keys of a state dict, taken out again.

Some are nobody else's and are taken out wherever they stand as a whole name between dots:
`_orig_mod` of torch.compile, `module` of DataParallel, DDP, DeepSpeed and averaged models,
`_fsdp_wrapped_module` of FSDP, `_checkpoint_wrapped_module` of activation checkpointing,
`_forward_module` of Lightning and accelerate. Others are names of attributes, as `model` of a
LightningModule, which official checkpoints use too; they go only from the front, and only where the
keys fit no other way (see `fronts`).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

_WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
# attributes of training codes' own classes
_OUTER = ("model.", "net.", "network.", "_model.")
# fronts of averaged (EMA) copies beside the last weights, and what the latter are called then
_AVERAGED = ("model_ema.", "ema_model.", "ema.", "module_ema.")
_LAST = ("online_model.", "")
_COUNTERS = ("decay", "num_updates", "initted", "step", "n_averaged")
_FLAT = "_flat_param"


def unwrap(keys: Iterable[str], strip: Sequence[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Keys without the names of wrappers.

    Args:
      keys: of a state dict.
      strip: prefixes that this kind of checkpoint may also have, each as often as it stands there.
    Returns:
      key -> key without them, and a line for every wrapper that was there.
    Raises:
      ValueError: parameters that FSDP has flattened into one.
    """
    bare, counts = {}, Counter()
    for key in keys:
        parts = key.split(".")
        kept = [part for part in parts if part not in _WRAPPERS]
        found = {part + "." for part in parts if part in _WRAPPERS}
        if parts[-1].endswith(_FLAT):
            raise ValueError(
                f"{key!r} is a row of parameters that FSDP has flattened: save the model with "
                "FSDP's FULL_STATE_DICT"
            )
        name = ".".join(kept)
        for prefix in strip:
            while name.startswith(prefix):
                name = name[len(prefix) :]
                found.add(prefix)
        bare[key] = name
        counts.update(found)
    return bare, [f"stripped {name!r} from {count} keys" for name, count in counts.items()]


def fronts(keys: Collection[str]) -> list[str]:
    """Fronts of some keys, one name or two, that may be a training code's own; to be tried."""
    single = (*_OUTER, *_AVERAGED)
    tried = (*single, *(a + b for a in single for b in single if a != b))
    return [front for front in tried if any(key.startswith(front) for key in keys)]


def split_averages(
    state: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any] | None, str]:
    """Separates averaged (EMA) copies that stand beside the last weights.

    A front of `_AVERAGED` marks copies if every key behind it is also there without it (or with
    "online_model.", as ema-pytorch writes), but for the counters of the averaging.

    Returns:
      The last weights, the averaged ones or None, and the front of the copies.
    """
    for front in _AVERAGED:
        copies = {k.removeprefix(front): v for k, v in state.items() if k.startswith(front)}
        for last in _LAST if copies else ():
            rest = {
                k.removeprefix(last): v
                for k, v in state.items()
                if not k.startswith(front) and k.startswith(last) and k not in _COUNTERS
            }
            named = {key for key in copies if key not in _COUNTERS}
            if named and named <= rest.keys():
                return rest, {**rest, **{key: copies[key] for key in named}}, front
    return dict(state), None, ""
