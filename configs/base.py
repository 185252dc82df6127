"""Fields that every stage's config has; the stages add model, loss, data and sizes."""

import ml_collections

ConfigDict = ml_collections.ConfigDict


def base(task: str) -> ConfigDict:
    """Common fields with the values that hold unless a stage says otherwise."""
    config = ConfigDict()
    config.task = task
    config.seed = 0
    config.total_steps = 1000
    config.batch_size = 8  # global, over all devices and processes
    # parts of a batch that go through the network one after another, for one update: less memory
    config.accumulate = 1
    config.dtype = "float32"  # compute type; parameters stay float32
    config.ema_decay = 0.0  # 0 = off
    # instead: averages whose length is chosen afterwards (`training.snapshots`), e.g. (0.05, 0.1)
    config.power_ema = ConfigDict({"sigmas": (), "snapshot_steps": 5000})
    config.log_every = 50
    config.eval_every = 0  # 0 = only at the end
    config.eval_batches = 4
    # video and audio for TensorBoard; 0 = never. Rare enough that they and their programs cost
    # a long run nothing; short runs, as the demos are, show none unless asked
    config.show_every = 5000
    config.show_examples = 2
    config.init_from = ConfigDict()  # our path -> "RUN_DIR:path there"; any --config.init_from.PART
    config.freeze = ()  # parts that keep their weights: "unet.input_blocks", "unet.*_blocks"
    # instead of all weights: low-rank factors beside the kernels of the layers that the globs
    # `targets` name ("*" stands for dots too), their product times alpha / rank; rank 0 = off
    config.lora = ConfigDict({"rank": 0, "alpha": 16.0, "targets": ("*",)})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1})
    config.data = ConfigDict(
        {
            "dir": "shards",
            "train_split": "train",
            "eval_split": "test",
            "read_threads": 4,
            "workers": 0,
            # records that cannot be read, and shards cut short, that may be passed over; 0 = none
            "max_damaged": 4,
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "lr": 1e-4,
            "schedule": "constant",
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "clip_norm": 0.0,
        }
    )
    config.checkpoint = ConfigDict(
        {
            "every_steps": 1000,
            "keep": 3,  # so many of the newest stay
            # besides them so many of the best; every save is then evaluated before; 0 = off
            "keep_best": 0,
            "best": "loss:min",  # METRIC:min or METRIC:max, a metric of evaluation
        }
    )
    config.audio = ConfigDict(
        {
            "sample_rate_hz": 16000,
            "n_fft": 1024,
            "hop": 256,
            "num_mels": 128,
            "fmin_hz": 125.0,
            "fmax_hz": 7600.0,
        }
    )
    # the paper's rate; lengths in frames follow it, see `frames_in`
    config.video = ConfigDict({"fps": 4.0, "height": 224, "width": 224})
    config.loss = ConfigDict()
    config.model = ConfigDict()
    return config


def frames_in(config: ConfigDict, seconds: float | ml_collections.FieldReference):
    """How many video frames (and features) last so long: follows `config.video.fps`."""
    return (config.video.get_oneway_ref("fps") * seconds + 1e-6).to_int()


def window_s(config: ConfigDict) -> ml_collections.FieldReference:
    """Seconds of a window of `config.data.window_frames` mel frames."""
    frames, hop = config.data.get_oneway_ref("window_frames"), config.audio.get_oneway_ref("hop")
    return frames * hop / config.audio.get_oneway_ref("sample_rate_hz")


def unknown_variant(name: str, arg: str, known: tuple[str, ...]) -> ValueError:
    """The error for `--config=configs/NAME.py:ARG` with an ARG that does not exist."""
    shown = ", ".join(repr(k) for k in known)
    return ValueError(
        f"configs/{name}.py has no variant {arg!r}; variants: {shown} ('' = the paper)"
    )
