"""Config of the toy task that logs its records."""

import toy_config


def get_config(arg: str = ""):
    """`arg` is the data folder."""
    config = toy_config.get_config(arg)
    config.task = "indexed_task:IndexedTask"
    config.model.ballast = 0
    config.checkpoint.keep = 2
    config.eval_batches = 0
    return config
