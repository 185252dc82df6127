"""Students of the latent diffusion model that sample in 4, 2 or 1 evaluations, guidance folded in.

    python -m foley_jax.main --config=configs/ldm_distilled.py --workdir=runs/ldm_4
    python -m foley_jax.main --config=configs/ldm_distilled.py:2 --workdir=runs/ldm_2
    python -m foley_jax.main --config=configs/ldm_distilled.py:1 --workdir=runs/ldm_1
    python -m foley_jax.sample silent.mp4 --model=runs/ldm_4 --steps=4 --out=out

Each is taught by the one before it, the first by `runs/ldm`. Embedded (as
`configs/ldm.py:embedded`): `:embedded`, `:embedded_2` and `:embedded_1`, of the same names.
"""

from configs import base, ldm

VARIANTS = ("", "2", "1", "embedded", "embedded_2", "embedded_1")


def get_config(arg: str = ""):
    """'' = 4 steps at the paper's sizes, '2' and '1' from it; 'embedded[_2|_1]' likewise."""
    if arg not in VARIANTS:
        raise base.unknown_variant("ldm_distilled", arg, VARIANTS)
    embedded = arg.startswith("embedded")
    steps = int(arg[-1]) if arg[-1:] in ("1", "2") else 4
    config = ldm.get_config("embedded" if embedded else "")
    runs = "demo/embedded/runs" if embedded else "runs"
    teacher = f"{runs}/ldm" if steps == 4 else f"{runs}/ldm_{2 * steps}"
    config.task = "distilled"
    config.init_from = base.ConfigDict(
        {part: f"{teacher}:{part}" for part in ("unet", "conditioner", "autoencoder")}
        | {f"teacher_{part}": f"{teacher}:{part}" for part in ("unet", "conditioner")}
        | {"latent_scale": f"{teacher}:latent_scale"}
    )
    config.distillation = base.ConfigDict(
        {
            "steps": steps,
            # the first teacher walks 24 steps in all, a student its own
            "substeps": 6 if steps == 4 else 2,
            "guidance": (3.0 if embedded else 4.5) if steps == 4 else 1.0,
            "with_teacher": True,
        }
    )
    config.total_steps = 800 if embedded else 20_000
    config.optimizer.lr = 5e-4 if embedded else 2e-5
    config.checkpoint.every_steps = 200 if embedded else 1000
    return config
