"""Linear layers with torch's initialisation, and the bias-free map before a BatchNorm."""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.kernels import dispatch
from foley_jax.layers import initializers


def dense(
    in_dim: int,
    out_dim: int,
    *,
    use_bias: bool = True,
    zero_init: bool = False,
    kernel_init: initializers.Initializer | None = None,
    dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Linear layer [..., in_dim] -> [..., out_dim], float32 parameters, torch initialisation.

    With a `kernel_init` of the caller's the bias starts at zero.
    """
    return nnx.Linear(
        in_dim,
        out_dim,
        use_bias=use_bias,
        kernel_init=kernel_init or initializers.kernel(zero=zero_init),
        bias_init=initializers.bias(in_dim, zero=zero_init or kernel_init is not None),
        dtype=dtype,
        param_dtype=jnp.float32,
        dot_general=dispatch.dot_general,
        rngs=rngs,
    )


class Pointwise(nnx.Module):
    """A 1x1 convolution without a bias: [..., in] -> [..., out]. Kernel [in, out]."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        kernel_init: initializers.Initializer,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_dim, out_dim), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        return dispatch.matmul(x.astype(self.dtype), kernel, gradients_as_products=True)
