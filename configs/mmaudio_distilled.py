"""Students of MMAudio's flow network that sample in 4, 2 or 1 evaluations, guidance folded in.

    python -m foley_jax.main --config=configs/mmaudio_distilled.py --workdir=runs/mmaudio_4
    python -m foley_jax.main --config=configs/mmaudio_distilled.py:2 --workdir=runs/mmaudio_2
    python -m foley_jax.main --config=configs/mmaudio_distilled.py:1 --workdir=runs/mmaudio_1
    python -m foley_jax.sample silent.mp4 --model=runs/mmaudio_4 --steps=4 --out=out

Each is taught by the one before it, the first by the run, or converted file, that `--config.base`
names (runs/mmaudio). Sizes and the demo as in `configs/mmaudio.py`: "medium_44k", "medium_44k_2",
"demo", "demo_2", ...
"""

from configs import base, mmaudio

STEPS = (4, 2, 1)


def get_config(arg: str = ""):
    """'' = small_16k in 4 steps; 'SIZE' = others, 'demo' = embedded set; '2', 'SIZE_1' = fewer."""
    size, _, last = arg.rpartition("_")
    if last not in ("2", "1"):
        size, last = arg, "4"
    sizes = ("", *mmaudio.SIZES, "demo")
    if size not in sizes:
        names = (f"{s}{'_' * bool(s)}{n}" for s in sizes for n in (2, 1))
        raise base.unknown_variant("mmaudio_distilled", arg, (*sizes, *names))
    config, steps = mmaudio.get_config(size), int(last)
    config.task = "mmaudio_distilled"
    runs = "demo/embedded/runs/mmaudio" if size == "demo" else "runs/mmaudio"
    config.base = runs if steps == 4 else f"{runs}_{2 * steps}"
    config.init_from.teacher_net = config.get_oneway_ref("base") + ":."
    for part in mmaudio.PARTS:
        config.init_from[part] = config.get_oneway_ref("base") + ":" + part
    config.distillation = base.ConfigDict(
        {
            "steps": steps,
            # the first teacher walks 24 steps in all, a student its own
            "substeps": 6 if steps == 4 else 2,
            "guidance": 4.5 if steps == 4 else 1.0,
            "with_teacher": True,
        }
    )
    config.total_steps = 400 if size == "demo" else 20_000
    config.optimizer.lr = 3e-4 if size == "demo" else 2e-5
    config.optimizer.warmup_steps = 50
    config.power_ema.sigmas = ()
    config.checkpoint.every_steps = 200 if size == "demo" else 1000
    return config
