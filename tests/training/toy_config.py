"""The toy task's config, as configs/*.py are."""

import ml_collections


def get_config(arg: str = ""):
    """Tiny; `arg` is the data folder."""
    return ml_collections.ConfigDict(
        {
            "task": "toy_task:ToyTask",
            "seed": 3,
            "total_steps": 12,
            "batch_size": 8,
            "dtype": "float32",
            "ema_decay": 0.9,
            "log_every": 1,
            "eval_every": 0,
            "eval_batches": 1,
            "init_from": {},
            "freeze": (),
            "mesh": {"data": -1, "fsdp": 1},
            "data": {
                "dir": arg,
                "train_split": "train",
                "eval_split": "test",
                "read_threads": 2,
                "workers": 0,
                "delay_s": 0.0,
            },
            "optimizer": {
                "name": "adamw",
                "lr": 3e-2,
                "schedule": "cosine",
                "warmup_steps": 3,
                "weight_decay": 0.01,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "clip_norm": 1.0,
            },
            "checkpoint": {"every_steps": 4, "keep": 3},
            "model": {"width": 8},
            "loss": {"nan_after": 0},
            "audio": {},
            "video": {},
        }
    )
