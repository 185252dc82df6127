"""Students of few steps: stage 2 again, taught by a trained latent diffusion model.

Batch and config fields as in `tasks/ldm.py`, besides:
  config.distillation.steps: evaluations of the student, which sampling then takes.
  config.distillation.substeps: DDIM steps of the teacher for each of them.
  config.distillation.guidance: classifier-free scale of the teacher, folded into the student; 1
    for a teacher that is a student itself, whose `steps` are then steps * substeps.
  config.distillation.with_teacher: False for the student alone, as sampling builds it.
  config.init_from: student and teacher (`teacher_unet`, `teacher_conditioner`) from the same run.
See `diffusion/distillation.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections

from foley_jax.diff_foley.models import latent_diffusion
from foley_jax.diff_foley.tasks import ldm
from foley_jax.diffusion import distillation, gaussian, guidance
from foley_jax.runtime import limits
from foley_jax.training import task as task_lib

TEACHER = ("teacher_unet", "teacher_conditioner")  # parts that only training has


class DistilledTask(ldm.LatentDiffusionTask):
    """Trains the student's U-Net and conditioner; teacher and autoencoder are frozen."""

    def __init__(self, config: ml_collections.ConfigDict):
        super().__init__(config)
        fields = config.distillation
        steps = limits.whole("distillation.steps", fields.steps, 1)
        substeps = limits.whole("distillation.substeps", fields.substeps, 1)
        distillation.levels(self.schedule, steps * substeps)

    def build(self, rngs: nnx.Rngs) -> latent_diffusion.LatentDiffusion:
        """A fresh student, and unless the config says otherwise its teacher beside it."""
        model = super().build(rngs)
        if self.config.distillation.get("with_teacher", True):
            teacher = super().build(rngs)
            model.teacher_unet, model.teacher_conditioner = teacher.unet, teacher.conditioner
        return model

    def loss(
        self,
        model: latent_diffusion.LatentDiffusion,
        batch: task_lib.Batch,
        key: jax.Array,
        *,
        train: bool,
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Mean distance of the student's jumps from its teacher's, one level per example.

        Evaluation spreads the levels evenly over the batch.
        """
        fields = self.config.distillation
        latent_key, level_key, noise_key = jax.random.split(key, 3)
        z_BHWC = self.latents(model, batch, latent_key)
        b = z_BHWC.shape[0]
        level_B = distillation.draw_levels(b, level_key, fields.steps, train=train)
        features_BLD = batch["cavp_BLD"].astype(jnp.float32)
        context_BLD = model.conditioner(features_BLD)

        def student(x_BHWC: jax.Array, t_B: jax.Array) -> jax.Array:
            return model.denoise(x_BHWC, t_B, context_BLD, context_s_BL=batch["context_s_BL"])

        loss_B = distillation.training_loss(
            self.schedule,
            student,
            self._teacher(model, features_BLD, batch["context_s_BL"]),
            z_BHWC,
            gaussian.noise_like(z_BHWC, key=noise_key),
            level_B,
            num_steps=fields.steps,
            substeps=fields.substeps,
            prediction=self.config.loss.prediction,
        )
        first = (level_B == 0).astype(jnp.float32)  # from pure noise, the longest jump
        return loss_B.mean(), {"loss_first": (loss_B * first).sum() / jnp.maximum(first.sum(), 1)}

    def _teacher(
        self, model: latent_diffusion.LatentDiffusion, features_BLD: jax.Array, times_BL: jax.Array
    ) -> gaussian.DenoiseFn:
        """The frozen teacher's prediction, guided as the config says."""
        contexts = [
            jax.lax.stop_gradient(model.teacher_conditioner(x))
            for x in (features_BLD, jnp.zeros_like(features_BLD))
        ]

        def network(x_BHWC: jax.Array, t_B: jax.Array, both: Any) -> jax.Array:
            context_BLD, times_BL = both
            return model.teacher_unet(x_BHWC, t_B, context_BLD, context_s_BL=times_BL)

        conditions = [(context_BLD, times_BL) for context_BLD in contexts]
        return guidance.classifier_free(network, *conditions, self.config.distillation.guidance)

    def show(
        self, model_fn: Callable[[Callable, task_lib.Batch], Any], batch: task_lib.Batch
    ) -> Mapping[str, task_lib.Image | task_lib.Audio]:
        """Nothing: the base class samples with guidance and solver steps, students have neither."""
        del model_fn, batch
        return {}
