"""The toy config, with video and audio every third step."""

import toy_config


def get_config(arg: str = ""):
    """`arg` is the data folder."""
    config = toy_config.get_config(arg)
    config.task = "showing_task:ShowingTask"
    config.show_every = 3
    config.show_examples = 2
    config.total_steps = 7
    return config
