"""Parts of a model that training leaves alone: `config.freeze = ("unet.input_blocks", ...)`."""

from collections.abc import Iterable, Mapping, Sequence
import fnmatch
from typing import Any

from flax import nnx
import jax

from foley_jax.training import paths


def patterns(freeze: str | Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Patterns of a config, each split into the parts of a path.

    Args:
      freeze: paths from the top with dots or slashes, each part perhaps a glob, "unet/*_blocks/0";
        a string holds one or, with commas, several.
    """
    names = freeze.split(",") if isinstance(freeze, str) else freeze
    return tuple(tuple(name.strip(" ./").replace(".", "/").split("/")) for name in names if name)


def is_frozen(path: Iterable[Any], freeze: Sequence[Sequence[str]]) -> bool:
    """Whether one of `patterns(...)` names `path` or something that holds it."""
    parts = [str(part) for part in path]
    return any(
        len(pattern) <= len(parts)
        and all(fnmatch.fnmatchcase(part, glob) for part, glob in zip(parts, pattern))
        for pattern in freeze
    )


def trainable(filter_: Any, freeze: str | Sequence[str]) -> Any:
    """`filter_` without the frozen parts, as an nnx filter."""
    split = patterns(freeze)
    if not split:
        return filter_
    return nnx.All(filter_, nnx.Not(lambda path, _: is_frozen(path, split)))


def check(freeze: str | Sequence[str], keys: Iterable[str]) -> None:
    """Refuses a pattern that names nothing.

    Args:
      keys: "a/b/0/kernel", every leaf of the model.
    Raises:
      ValueError: the message lists the model's parts.
    """
    paths = [key.split("/") for key in keys]
    for pattern in patterns(freeze):
        if not any(is_frozen(path, (pattern,)) for path in paths):
            parts = ", ".join(sorted({path[0] for path in paths}))
            raise ValueError(
                f"config.freeze: {'.'.join(pattern)!r} names nothing in this model; its parts: "
                f"{parts} (and what they hold, e.g. 'unet.input_blocks.0')"
            )


def keep(before: Mapping[str, Any], after: Any, freeze: str | Sequence[str]) -> Any:
    """`after` with the frozen leaves of `before`: statistics of a frozen part do not move."""
    split = patterns(freeze)
    if not split:
        return after

    def choose(path: tuple[Any, ...], old: Any, new: Any) -> Any:
        return old if is_frozen(paths.key_of(path).split("/"), split) else new

    return jax.tree_util.tree_map_with_path(choose, before, after)
