"""AdamW, its learning-rate schedules, and the update of one step."""

import jax
import jax.numpy as jnp
import ml_collections
import optax

FINAL_FRACTION = 0.05  # where "constant_then_linear" ends
CONSTANT_PART = 0.6  # of the steps after warm-up
DROPS = (0.8, 0.9)  # of all steps, counted from the end of warm-up: where "drops" falls
DROP = 0.1


def schedule(config: ml_collections.ConfigDict, total_steps: int) -> optax.Schedule:
    """Learning rate of step 0, 1, ..., total_steps - 1.

    Linear warm-up lr * (step + 1) / warmup_steps, then by `config.schedule`:
      "cosine": lr * (1 + cos(pi * p)) / 2, p from 0 to 1 over the remaining steps;
      "constant": lr;
      "constant_then_linear": lr for 60 % of the remaining steps, then linear to 5 % of lr;
      "drops": lr, a tenth and a hundredth of it, from 80 % and 90 % of `total_steps` after the
        warm-up on (MMAudio's, with warmup_steps=1001: it falls at 241,000 and 271,000 of 300,000).

    Args:
      config: lr, schedule, warmup_steps.
      total_steps: length of the run.
    Raises:
      ValueError: unknown schedule.
    Source: open_clip scheduler.py `cosine_lr` (CAVP), stage2 `LambdaLinearScheduler`.
    """
    shapes = {
        "cosine": lambda p: 0.5 * (1.0 + jnp.cos(jnp.pi * p)),
        "constant": jnp.ones_like,
        "drops": None,  # of steps, not of progress
        "constant_then_linear": _constant_then_linear,
    }
    if config.schedule not in shapes:
        raise ValueError(
            f"config.optimizer.schedule is {config.schedule!r}, "
            f"expected one of {', '.join(sorted(shapes))}"
        )
    shape = shapes[config.schedule]
    warmup, rest = config.warmup_steps, max(1, total_steps - config.warmup_steps)
    lr = config.lr
    drops = [max(0, warmup - 1) + round(part * total_steps) for part in DROPS]

    def value(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        if shape is None:
            after = DROP ** sum((step >= drop).astype(jnp.float32) for drop in drops)
        else:
            after = shape(jnp.clip((step - warmup) / rest, 0.0, 1.0))
        return lr * jnp.where(step < warmup, (step + 1) / max(1, warmup), after)

    return value


def _constant_then_linear(p: jax.Array) -> jax.Array:
    falling = jnp.maximum(p - CONSTANT_PART, 0.0) / (1.0 - CONSTANT_PART)
    return 1.0 - (1.0 - FINAL_FRACTION) * falling


def make(
    config: ml_collections.ConfigDict, total_steps: int, decay_mask: optax.Params
) -> optax.GradientTransformation:
    """AdamW with optional clipping by the global norm (`clip_norm=0`: off).

    The tree of states has one form for every setting, so that a run may be continued with
    another schedule, decay or clipping.

    Args:
      config: name, lr, schedule, warmup_steps, weight_decay, b1, b2, eps, clip_norm.
      total_steps: length of the run.
      decay_mask: pytree of bools like the parameters, True where weight decay applies.
    Raises:
      ValueError: unknown optimizer or schedule.
    """
    if config.name != "adamw":
        raise ValueError(f"config.optimizer.name is {config.name!r}, expected 'adamw'")
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adamw = optax.adamw(
        schedule(config, total_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    return optax.chain(clip, adamw)
