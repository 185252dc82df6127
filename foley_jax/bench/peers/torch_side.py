"""Parts that all PyTorch peers share: where they run, how a call ends, how arrays cross over."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from foley_jax.bench import case


def absent() -> str:
    """Why there can be no peers here; "" if there can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed (`pip install 'foley_jax[bench]'`): no peers"
    if jax.default_backend() == "tpu":
        return "PyTorch has no TPU peer here"
    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU: no peers"
    return ""


def prepare(threads: int) -> None:
    """As many threads as XLA takes; on a GPU TF32 as XLA has it, and convolutions tried out."""
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def device() -> Any:
    """Where peers run: on the GPU if JAX does."""
    import torch

    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def dtype(ours: str) -> Any:
    """float32; for half precision torch's usual float16 on GPUs, bfloat16 on CPUs."""
    import torch

    if ours == "float32":
        return torch.float32
    return torch.float16 if jax.default_backend() == "gpu" else torch.bfloat16


def tensors(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A state dict of arrays as float32 tensors of their own, in PyTorch's memory layout."""
    import torch

    return {k: torch.tensor(np.ascontiguousarray(v), dtype=torch.float32) for k, v in state.items()}


def fill(module: Any, state: Mapping[str, np.ndarray], *, ours: str = "float32") -> Any:
    """Loads a state dict strictly; evaluation mode, channels last, on the device.

    Args:
      module: made on torch's "meta" device, so that no memory is taken twice.
      state: its own names -> arrays.
      ours: dtype of our computation.
    """
    import torch

    module.load_state_dict(tensors(state), strict=True, assign=True)
    module = module.eval().requires_grad_(False).to(device(), dtype(ours))
    return module.to(memory_format=torch.channels_last)


def placed(module: Any, *, ours: str = "float32") -> Any:
    """A filled module on the device, in the dtype of the computation."""
    return module.to(device(), dtype(ours))


def images(x_BHWC: Any, *, ours: str = "float32") -> Any:
    """[B, H, W, C] array -> [B, C, H, W] tensor, channels last in memory."""
    import torch

    x = torch.tensor(np.asarray(x_BHWC)).to(device())
    x = x.to(dtype(ours)) if x.is_floating_point() else x
    return x.permute(0, 3, 1, 2)  # its memory is channels last already


def tensor(x: Any, *, ours: str = "float32") -> Any:
    """An array as it is laid out, on the device; floats in the dtype of the computation."""
    import torch

    x = torch.tensor(np.asarray(x)).to(device())
    return x.to(dtype(ours)) if x.is_floating_point() else x


def array(x: Any) -> np.ndarray:
    """A tensor as a float32 array."""
    return x.detach().float().cpu().numpy()


def channels_last(x_BCHW: Any) -> np.ndarray:
    """[B, C, H, W] tensor -> [B, H, W, C] array."""
    return array(x_BCHW).transpose(0, 2, 3, 1)


def peer(fn: Callable[[], Any], output: Callable[[Any], Any], *, training: bool = False):
    """A peer of a function without arguments.

    Args:
      fn: what is timed.
      output: see `case.Peer`.
      training: it takes gradients.
    """
    import torch

    on_gpu = device().type == "cuda"

    def call() -> Any:
        with torch.inference_mode(not training):
            result = fn()
        if on_gpu:
            torch.cuda.synchronize()
        return result

    def peak_bytes() -> int:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before

    return case.Peer(call, output, peak_bytes if on_gpu else None)


def both(
    fn: Callable[..., Any], module: Any, *args: Any, output: Callable[[Any], Any]
) -> dict[str, case.Peer]:
    """`fn(module, *args)` eager, and on a GPU with the module compiled as well."""
    import torch

    made = {"torch": peer(lambda: fn(module, *args), output)}
    if device().type == "cuda":
        compiled = torch.compile(module)
        made["torch.compile"] = peer(lambda: fn(compiled, *args), output)
    return made
