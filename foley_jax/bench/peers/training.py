"""One update in torch: forward, backward, AdamW."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from foley_jax.bench import case
from foley_jax.bench.peers import torch_side


def trained(module: Any) -> Any:
    """The module with gradients wanted for all of its parameters."""
    return module.requires_grad_(True)


def step(
    loss_fn: Callable[[], Any],
    modules: Iterable[Any],
    optimizer: Mapping[str, Any],
    ours: str,
) -> dict[str, case.Peer]:
    """A peer whose call makes one update and gives its loss and the length of its gradients.

    Args:
      loss_fn: the loss as a scalar tensor, from float32 parameters.
      modules: whose parameters with gradients are trained.
      optimizer: `config.optimizer`.
      ours: dtype of our computation; torch computes a lower one by autocast to bfloat16.
    """
    import torch

    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(
        parameters,
        lr=optimizer["lr"] / max(1, optimizer["warmup_steps"]),  # as of our first step
        betas=(optimizer["b1"], optimizer["b2"]),
        eps=optimizer["eps"],
        weight_decay=optimizer["weight_decay"],
        fused=True,
    )

    def update() -> Any:
        adamw.zero_grad(set_to_none=True)
        with torch.autocast(torch_side.device().type, torch.bfloat16, enabled=ours != "float32"):
            loss = loss_fn()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        adamw.step()
        return {"loss": loss.detach(), "grad_norm": norm}

    def output(metrics: Mapping[str, Any]) -> dict[str, Any]:
        return {name: torch_side.array(value) for name, value in metrics.items()}

    return {"torch": torch_side.peer(update, output, training=True)}
