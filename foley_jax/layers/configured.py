"""Builds a module from the fields of a config, with errors that name the field."""

from collections.abc import Callable, Mapping
import inspect
from typing import Any, TypeVar

from flax import nnx
import jax.numpy as jnp

Built = TypeVar("Built")


def defaults(cls: type) -> dict[str, Any]:
    """The fields of `cls` with their default values, but for the dtype: a config to start from."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "dtype", "rngs")}


def build(
    cls: Callable[..., Built], fields: Mapping[str, Any], *, dtype: Any = None, rngs: nnx.Rngs
) -> Built:
    """Calls `cls(**fields, rngs=rngs)`; lists become tuples, dtype names become dtypes.

    Args:
      cls: a module class whose constructor takes the fields as keyword arguments.
      fields: mapping or ConfigDict; a field that is absent keeps the class's default.
      dtype: compute dtype for a config without its own `dtype` field, e.g. "bfloat16".
      rngs: where the initial weights come from.
    Raises:
      ValueError: a field that `cls` does not know.
    """
    # a module class itself shows only (*args, **kwargs), through its metaclass
    target = cls.__init__ if inspect.isclass(cls) else cls
    known = [n for n in inspect.signature(target).parameters if n not in ("self", "rngs")]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(unknown)}; its fields: {', '.join(known)}"
        )
    arguments = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in fields.items()}
    if dtype is not None:
        arguments.setdefault("dtype", dtype)
    if "dtype" in arguments:
        arguments["dtype"] = jnp.dtype(arguments["dtype"])
    return cls(**arguments, rngs=rngs)
