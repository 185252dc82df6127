"""MMAudio's flow network on features of audio, video and text, clips of 8 s.

Paper (batch 512, AdamW 1e-4, 300k steps; sizes small_16k, small_44k, medium_44k, large_44k):

    python -m data_prep.mmaudio_features VIDEOS features_mm --model=official_mmaudio
    python -m foley_jax.main --config=configs/mmaudio.py --workdir=runs/mmaudio
    python -m foley_jax.main --config=configs/mmaudio.py:large_44k_v2 --workdir=runs/mmaudio_large

Features of the 44 kHz sizes are made with --rate=44k. Afterwards averages of any length:

    python -m foley_jax.training.snapshots runs/mmaudio runs/mmaudio_ema --sigma_rel=0.08

Fine-tuning on a folder of 15 to 60 clips by low-rank adapters ("lora", "medium_44k_lora", ...):

    python -m foley_jax.convert mmaudio/small_16k mmaudio_small_16k.pth runs/base
    python -m data_prep.mmaudio_features CLIPS features_own --model=official_mmaudio \\
        --manifest=own.jsonl
    python -m foley_jax.main --config=configs/mmaudio.py:lora --workdir=runs/own
    python -m foley_jax.convert export runs/own runs/own_merged

Demo (the embedded set with texts; CAVP of launch/train_embedded.sh in place of Synchformer):

    python -m foley_jax.main --config=configs/mmaudio_vae.py:demo \\
        --workdir=demo/embedded/runs/mmaudio_vae
    python -m data_prep.sources.scenes demo/videos --out=demo/embedded/scenes.jsonl
    python -m data_prep.mmaudio_features demo/videos demo/embedded/features_mm \\
        --autoencoder=demo/embedded/runs/mmaudio_vae --cavp=demo/embedded/runs/cavp \\
        --manifest=demo/embedded/scenes.jsonl
    python -m foley_jax.main --config=configs/mmaudio.py:demo --workdir=demo/embedded/runs/mmaudio
    python -m foley_jax.sample demo/videos/test --model=demo/embedded/runs/mmaudio --text=glass \\
        --out=demo/embedded/out_mmaudio
"""

from configs import base

_44K = {"sample_rate_hz": 44100, "n_fft": 2048, "hop": 512, "num_mels": 128, "fmax_hz": 22050.0}
_LARGE = {"latent_dim": 40, "width": 896, "num_heads": 14, "depth": 21, "fused_depth": 14}
# fields of the network; large_44k_v2's recipe was not published
SIZES = {
    "small_16k": {},
    "small_44k": {"latent_dim": 40},
    "medium_44k": {**_LARGE, "depth": 12, "fused_depth": 8},
    "large_44k": _LARGE,
    "large_44k_v2": {**_LARGE, "v2": True},
}
LORA = ("lora", *(f"{size}_lora" for size in SIZES))
PARTS = (  # of the network
    *("audio_input_proj", "clip_input_proj", "sync_input_proj", "text_input_proj"),
    *("clip_cond_proj", "text_cond_proj", "global_cond_mlp", "t_embed"),
    *("joint_blocks", "fused_blocks", "final_layer", "sync_pos_emb"),
    *("empty_clip_feat", "empty_sync_feat", "empty_string_feat", "latent_mean", "latent_std"),
)


def get_config(arg: str = ""):
    """'' = small_16k; other sizes by their names; "lora", "SIZE_lora" = adapters for one; "demo" =
    the embedded set."""
    variant = arg
    if variant and variant not in (*SIZES, *LORA, "demo"):
        raise base.unknown_variant("mmaudio", variant, ("", *SIZES, *LORA, "demo"))
    arg = "small_16k" if variant in ("", "lora", "demo") else variant.removesuffix("_lora")
    config = base.base("mmaudio")
    config.total_steps = 300_000
    config.batch_size = 512
    config.dtype = "bfloat16"
    config.power_ema.sigmas = (0.05, 0.1)
    config.eval_batches = 8
    config.eval_every = 5000
    config.show_every = 0  # audio needs networks that training does not hold
    config.data.dir = "features_mm"
    config.data.window_s = 8.0
    config.parts = "official_mmaudio"  # where sampling finds the other networks
    config.optimizer.lr = 1e-4
    config.optimizer.schedule = "drops"
    config.optimizer.warmup_steps = 1001
    config.optimizer.weight_decay = 1e-6
    config.optimizer.b2 = 0.95
    config.optimizer.eps = 1e-6  # 1e-8 in float32
    config.optimizer.clip_norm = 1.0
    config.audio.update({"num_mels": 80, "fmin_hz": 0.0, "fmax_hz": 8000.0})
    if arg.endswith(("44k", "44k_v2")):
        config.audio.update(_44K)
    constants = config.data.get_oneway_ref("dir") + "/constants:"
    for name in ("latent_mean", "latent_std", "empty_string_feat"):
        config.init_from[name] = constants + name
    config.loss = base.ConfigDict({"condition_dropout": 0.1})
    config.model = base.ConfigDict(
        {
            "latent_dim": 20,
            "width": 448,
            "num_heads": 7,
            "depth": 12,  # of which the last are over the latents alone:
            "fused_depth": 8,
            "clip_dim": 1024,
            "sync_dim": 768,
            "text_dim": 1024,
            "text_length": 77,
            "v2": False,
            "final_by_position": False,
            "remat": False,
        }
    )
    config.model.update(SIZES[arg])
    if variant in LORA:
        _lora(config)
    elif variant == "demo":
        _demo(config)
    return config


def _demo(config):
    """A small network on CAVP's features and hashed words."""
    config.data.dir = "demo/embedded/features_mm"
    config.autoencoder = "demo/embedded/runs/mmaudio_vae"
    config.cavp = "demo/embedded/runs/cavp"
    config.parts = ""
    config.dtype = "float32"
    config.total_steps = 2500
    config.batch_size = 16
    config.ema_decay = 0.99
    config.power_ema.sigmas = ()
    config.eval_every = 0
    config.optimizer.lr = 1e-3
    config.optimizer.eps = 1e-8
    config.optimizer.schedule = "constant_then_linear"
    config.optimizer.warmup_steps = 100
    config.checkpoint.every_steps = 500
    config.model.update({"width": 192, "num_heads": 3, "depth": 4, "fused_depth": 2})
    config.model.update({"clip_dim": 128, "sync_dim": 128})  # CAVP's
    config.model.update({"text_dim": 32, "text_length": 8})  # of `small_encoders`
    config.model.final_by_position = True


def _lora(config):
    """Few clips: a thousand steps of small batches on the blocks' attention and feed-forwards."""
    config.base = "runs/base"  # the network that is adapted: a run, or one that was converted
    for part in PARTS:  # its statistics too, in which its weights were trained
        config.init_from[part] = config.get_oneway_ref("base") + ":" + part
    config.lora.rank = 16
    config.lora.targets = ("*_blocks.*.qkv", "*_blocks.*.linear1", "*_blocks.*.ffn.*")
    config.data.dir = "features_own"
    config.total_steps = 1000
    config.batch_size = 8
    config.eval_batches = 0
    config.power_ema.sigmas = ()
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 50
    config.checkpoint.every_steps = 250
