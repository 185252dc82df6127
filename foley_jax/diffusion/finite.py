"""Finding where the numbers of a sampling run stop being finite.

A run that ended in nan or infinity is done once more with a `Watch` in its denoiser, which notes
at every evaluation what is finite. It asks the host, so that no sampler knows of it; runs that end
well have none and pay nothing.
B batch.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian

INPUT = "latents"  # the term of what comes into an evaluation: what the step before it made


class Trouble(NamedTuple):
    """The first numbers of a run that are not finite.

    Attributes:
      step, steps: which evaluation, from 1, and how many there were; those at one model time count
        as one.
      time: its model time.
      term: what was not finite there, the first of those that are watched.
      item: the first item that has it.
    """

    step: int
    steps: int
    time: float
    term: str
    item: int

    @property
    def words(self) -> str:
        """Term and step, for a message."""
        return f"the {self.term} at solver step {self.step} of {self.steps} (time {self.time:g})"


class Watch:
    """Notes what is finite while a program runs that was traced with it; one program each."""

    def __init__(self):
        self._terms: list[str] = []  # in the order in which they are computed
        self._times: set[float] = set()
        self._bad: list[tuple[float, int, int]] = []  # (-time, place of the term, item)

    def note(
        self, term: str, values: gaussian.Tree, t_B: jax.Array, item_B: jax.Array | None = None
    ) -> None:
        """Watches a pytree inside the program; the parts of a dict are terms of their own.

        Args:
          values: [B, ...], or [k * B, ...], k values of every item.
          t_B: model times, all alike.
          item_B: int32 numbers of the items; by default 0, 1, ...
        """
        item_B = jnp.arange(t_B.shape[0]) if item_B is None else item_B
        for path, leaf in jax.tree_util.tree_leaves_with_path(values):
            name = term + "".join(f" ({getattr(key, 'key', key)})" for key in path)
            if name not in self._terms:
                self._terms.append(name)
            fine = jnp.isfinite(leaf).reshape(-1, item_B.shape[0], leaf.size // leaf.shape[0])
            record = functools.partial(self._record, self._terms.index(name))
            jax.debug.callback(record, t_B[0], item_B, fine.all(axis=(0, 2)))

    def around(
        self,
        term: str,
        denoise_fn: Callable[..., gaussian.Tree],
        item_B: jax.Array | None = None,
        *,
        of_input: bool = False,
    ) -> Callable[..., gaussian.Tree]:
        """Returns the denoiser (x, t_B, ...) whose predictions, and perhaps x, are watched."""

        def denoise(x: gaussian.Tree, t_B: jax.Array, *others) -> gaussian.Tree:
            if of_input:
                self.note(INPUT, x, t_B, item_B)
            predicted = denoise_fn(x, t_B, *others)
            self.note(term, predicted, t_B, item_B)
            return predicted

        return denoise

    def _record(self, place: int, time: np.ndarray, item_B: np.ndarray, fine_B: np.ndarray) -> None:
        # under `jax.vmap` there is a call for every clip
        self._times.add(float(time))
        bad = np.ravel(item_B)[~np.ravel(fine_B)]
        self._bad += [(-float(time), place, int(item)) for item in bad]

    def first(self) -> Trouble | None:
        """Returns what was found since the last call, when the program has ended; or None."""
        jax.effects_barrier()
        times, bad = sorted(self._times, reverse=True), sorted(self._bad)
        self._times, self._bad = set(), []
        if not bad:
            return None
        negative, place, item = bad[0]
        step = times.index(-negative) + 1
        return Trouble(step, len(times), -negative, self._terms[place], item)
