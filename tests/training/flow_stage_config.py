"""MMAudio's stage in small: `flow_stage_config.py:FOLDER` of features."""

from tests.mmaudio import flow_records

STEPS = 12


def get_config(folder: str):
    """Fields that make runs of any number of processes comparable step by step."""
    config = flow_records.config(folder, total_steps=STEPS, eval_batches=0, eval_clips=0)
    config.checkpoint.every_steps = 1
    return config
