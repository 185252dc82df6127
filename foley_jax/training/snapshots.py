"""Averages of any length from a run that kept `config.power_ema`, chosen after the training.

    python -m foley_jax.training.snapshots runs/mmaudio runs/mmaudio_ema --sigma_rel=0.08

writes the average as a folder that is sampled from, evaluated and trained on like any run. A
snapshot is a folder RUN/power_ema/checkpoints/STEP with one group for each length that is kept.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import pathlib
import sys

from etils import epath
import jax
import ml_collections
import numpy as np

from foley_jax.media import file_arguments
from foley_jax.runtime import reasons
from foley_jax.training import paths, power_ema
from foley_jax.training import state as state_lib
from foley_jax.training.checkpointing import checkpoint, run_directory

FOLDER, PREFIX = "power_ema", "sigma_"


class Snapshots:
    """Writes the snapshots of one run; none where its config keeps no such averages.

    Args:
      start: update that the run goes on from; later snapshots are made anew.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: epath.PathLike, start: int):
        self.sigmas, self.last = power_ema.sigmas_of(config), config.total_steps
        if self.sigmas:
            self.every = config.power_ema.snapshot_steps
            self.store = checkpoint.Checkpoints(epath.Path(workdir) / FOLDER)
            self.store.forget_after(start)
            self.there = set(self.store.steps())

    def due(self, step: int) -> bool:
        """Every `snapshot_steps` and at the end, and where one was lost by a kill."""
        if not self.sigmas or not step or step in self.there:
            return False
        return step == self.last or (self.every > 0 and step % self.every == 0)

    def save(self, step: int, state: state_lib.TrainState) -> None:
        """Starts writing the averages after update `step`."""
        names = (f"{PREFIX}{sigma:g}" for sigma in self.sigmas)
        self.store.save(step, dict(zip(names, (state.ema, *state.averages), strict=True)))
        self.there.add(step)

    def wait(self) -> None:
        """Waits until all are on disk; raises as `Checkpoints.wait`."""
        if self.sigmas:
            self.store.wait()

    def close(self) -> None:
        if self.sigmas:
            self.store.close()


def synthesise(
    run_dir: epath.PathLike, sigma_rel: float, step: int | None = None
) -> dict[str, np.ndarray]:
    """Returns the average of a wanted length, path -> float32; holds one snapshot at a time.

    Args:
      sigma_rel: its length, as a share of the training until `step`.
      step: where it ends, a snapshot; None is the newest one. Later ones are not used.
    Raises:
      FileNotFoundError: no snapshots, or none of that step.
      ValueError: no such length.
      CorruptCheckpointError: a snapshot is damaged.
    """
    gamma = power_ema.gamma_of(sigma_rel)
    folder = epath.Path(run_dir) / FOLDER
    if checkpoint.latest_step(folder) is None:
        raise FileNotFoundError(
            f"{run_dir} has no snapshots of averages; train with --config.power_ema.sigmas="
            f"{power_ema.SIGMAS} --config.ema_decay=0.0"
        )
    store = checkpoint.Checkpoints(folder, read_only=True)
    try:
        steps = store.steps()
        if step is not None and step not in steps:
            raise FileNotFoundError(f"{folder} has no snapshot of step {step}; it has {steps}")
        end = steps[-1] if step is None else step
        which = [(at, name) for at in steps if at <= end for name in sorted(store.manifest(at))]
        weights = power_ema.synthesis_weights(
            [at for at, _ in which],
            [power_ema.gamma_of(float(name.removeprefix(PREFIX))) for _, name in which],
            end,
            gamma,
        )
        return power_ema.synthesised(_read(store, which), weights)
    finally:
        store.close()


def _read(
    store: checkpoint.Checkpoints, which: Sequence[tuple[int, str]]
) -> Iterator[Mapping[str, jax.Array]]:
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for step, name in which:
        wanted = {
            key: jax.ShapeDtypeStruct(leaf["shape"], leaf["dtype"], sharding=place)
            for key, leaf in store.manifest(step)[name].items()
        }
        yield store.read(step, {name: wanted})[name]


def write(
    run_dir: epath.PathLike, out: epath.PathLike, sigma_rel: float, step: int | None = None
) -> None:
    """Writes what `synthesise` gives, beside the newest frozen weights, as a folder of its own."""
    config = run_directory.load_config(run_dir)
    params = synthesise(run_dir, sigma_rel, step)
    rest = run_directory.read_groups(run_dir)["rest"]
    run_directory.save_model(
        out, config=run_directory.plain(config), params=paths.nest(params), rest=paths.nest(rest)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser: argparse.ArgumentParser = file_arguments.Parser(
        prog="python -m foley_jax.training.snapshots", description=__doc__
    )
    parser.add_argument("run", type=pathlib.Path, help="run that kept averages")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    parser.add_argument("--sigma_rel", type=float, default=power_ema.SIGMAS[0], help="length")
    parser.add_argument("--step", type=int, help="where the average ends (the newest snapshot)")
    args = parser.parse_args(argv)
    try:
        write(args.run, args.out, args.sigma_rel, args.step)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {reasons.of(error)}")
    print(f"the average of sigma_rel {args.sigma_rel:g} is in {args.out}")


if __name__ == "__main__":
    main()
