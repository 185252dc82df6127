"""Nested trees <-> flat dicts with keys such as "input_blocks/3/1/conv1/kernel"."""

from collections.abc import Mapping
from typing import Any

import jax


def _part(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):  # dict, list or tuple, dataclass or namedtuple
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    raise TypeError(f"cannot name tree path entry {entry!r}")


def key_of(path: tuple[Any, ...]) -> str:
    """Joins a jax tree path with slashes."""
    return "/".join(_part(entry) for entry in path)


def flatten(tree: Any) -> dict[str, Any]:
    """Path -> leaf of any pytree; None has no leaves."""
    return {key_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def restore(tree: Any, flat: Mapping[str, Any]) -> Any:
    """`tree` with every leaf replaced by the one of the same path in `flat`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: flat[key_of(path)], tree)


def nest(flat: Mapping[str, Any]) -> dict[Any, Any]:
    """Flat dict -> nested dict; parts that are numbers (list indices) become ints."""
    result: dict[Any, Any] = {}
    for key, leaf in flat.items():
        *parents, last = (int(part) if part.isdigit() else part for part in key.split("/"))
        node = result
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return result
