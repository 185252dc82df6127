"""A seeded file of an official format through `python -m foley_jax.convert`, read back."""

import collections
import pathlib
import subprocess
import sys

import jax
import numpy as np
import torch

from foley_jax.runtime import network as network_lib
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import run_directory

ROOT = pathlib.Path(__file__).parents[2]


def network(kind: str, values: dict[str, np.ndarray], folder: pathlib.Path) -> network_lib.Network:
    """Saves the tensors as PyTorch does, converts the file by command and loads the result.

    The command must tell the kind from the keys.
    """
    file = folder / "ema_0.9999_100000.pt"
    state = collections.OrderedDict((k, torch.from_numpy(np.array(v))) for k, v in values.items())
    torch.save(state, file)
    command = [sys.executable, "-m", "foley_jax.convert", "auto", file, folder / "run"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f": {kind}," in done.stdout, done.stdout
    file.unlink()
    config, params, rest = run_directory.load_model_state(folder / "run")
    config.dtype = "float32"
    task = task_lib.resolve(config)
    return network_lib.Network.rebuild(
        task.build, task.trainable, params, jax.tree.map(np.asarray, rest)
    )
