"""Students of few steps: the flow network again, taught by a trained one.

Batch and config fields as in `tasks/flow.py`, besides:
  config.distillation.steps: evaluations of the student, which sampling then takes.
  config.distillation.substeps: Euler steps of the teacher for each of them.
  config.distillation.guidance: classifier-free scale of the teacher, folded into the student; 1
    for a teacher that is a student itself, whose `steps` are then steps * substeps.
  config.distillation.with_teacher: False for the student alone, as sampling builds it.
  config.init_from: every part of the student, and `teacher_net`, from the same run.
See `diffusion/flow_distillation.py`.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections

from foley_jax.diffusion import distillation, flow_distillation, gaussian, guidance
from foley_jax.mmaudio.models import flow_network
from foley_jax.mmaudio.tasks import flow as flow_task
from foley_jax.mmaudio.tasks import flow_loss
from foley_jax.runtime import limits
from foley_jax.training import task as task_lib

TEACHER = "teacher_net"  # the part that only training has


def _is_teacher(path: tuple, value: Any) -> bool:
    del value
    return path[0] == TEACHER


class DistilledFlowTask(flow_task.FlowTask):
    """Trains the student; its teacher is frozen."""

    trainable = nnx.All(nnx.Param, nnx.Not(_is_teacher))

    def __init__(self, config: ml_collections.ConfigDict):
        super().__init__(config)
        fields = config.distillation
        limits.whole("distillation.steps", fields.steps, 1)
        limits.whole("distillation.substeps", fields.substeps, 1)

    def build(self, rngs: nnx.Rngs) -> flow_network.FlowNetwork:
        """A fresh student, and unless the config says otherwise its teacher inside it."""
        model = super().build(rngs)
        if self.config.distillation.get("with_teacher", True):
            model.teacher_net = super().build(rngs)
        return model

    def loss(
        self, model: flow_network.FlowNetwork, batch: task_lib.Batch, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, task_lib.Metrics]:
        """Mean squared error of the student's velocities against its teacher's, one step of its
        grid per example; evaluation spreads the steps evenly over the batch."""
        fields = self.config.distillation
        draw_key, level_key = jax.random.split(key)
        shape, share = batch["mean_BNC"].shape, self.config.loss.condition_dropout
        draws = flow_loss.draw(shape, draw_key, train=train, dropout=share)
        level_B = distillation.draw_levels(shape[0], level_key, fields.steps, train=train)
        dropped = (draws.drop_video_B, draws.drop_text_B)
        told = flow_loss.conditions(model, batch, *dropped)

        def student(x_BNC: jax.Array, t_B: jax.Array) -> jax.Array:
            return model.predict_flow(x_BNC, t_B, told)

        loss_B = flow_distillation.training_loss(
            student,
            self._teacher(model.teacher_net, batch, *dropped),
            flow_loss.latents(model, batch, draws.posterior_BNC),
            draws.noise_BNC,
            level_B,
            num_steps=fields.steps,
            substeps=fields.substeps,
        )
        first = (level_B == 0).astype(jnp.float32)  # from pure noise
        return loss_B.mean(), {"loss_first": (loss_B * first).sum() / jnp.maximum(first.sum(), 1)}

    def _teacher(
        self, teacher: flow_network.FlowNetwork, batch: task_lib.Batch, *dropped: jax.Array
    ) -> gaussian.DenoiseFn:
        """The frozen teacher's velocity, guided as the config says."""
        scale = self.config.distillation.guidance
        told = flow_loss.conditions(teacher, batch, *dropped)
        null = None
        if scale != 1:
            null = teacher.empty_conditions(
                batch["mean_BNC"].shape[0],
                clip_length=batch["clip_BVD"].shape[1],
                sync_length=batch["sync_BSD"].shape[1],
            )
        return guidance.classifier_free(teacher.predict_flow, told, null, scale)
