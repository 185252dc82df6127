"""PatchGAN critic for sharper mels in autoencoder training.

B batch, H W space, C channels.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.layers import conv
from foley_jax.layers import norm as normalization

LEAK = 0.2  # pix2pix


class PatchDiscriminator(nnx.Module):
    """Scores overlapping patches: 4x4 convolutions, `num_layers` of them with stride 2.

    Differs from the source in normalising by groups, not over the batch, so that it has no state.
    Source: taming-transformers NLayerDiscriminator.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: int = 64,
        num_layers: int = 3,
        num_groups: int = 32,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        widths = [channels * min(2**i, 8) for i in range(num_layers + 1)]

        def layer(in_ch: int, out_ch: int, stride: int) -> conv.Conv2d:
            pad = ((1, 1), (1, 1))
            return conv.Conv2d(
                in_ch, out_ch, (4, 4), stride=stride, padding=pad, dtype=dtype, rngs=rngs
            )

        self.conv_in = layer(in_channels, widths[0], 2)
        self.convs = nnx.List(
            [
                layer(widths[i], widths[i + 1], 2 if i + 1 < num_layers else 1)
                for i in range(num_layers)
            ]
        )
        self.norms = nnx.List(
            [
                normalization.GroupNorm32(w, num_groups=num_groups, epsilon=1e-5, rngs=rngs)
                for w in widths[1:]
            ]
        )
        self.conv_out = layer(widths[-1], 1, 1)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """Images -> float32 scores [B, H', W', 1], high for real."""
        h = jax.nn.leaky_relu(self.conv_in(x_BHWC), LEAK)
        for layer, norm in zip(self.convs, self.norms):
            h = jax.nn.leaky_relu(norm(layer(h)), LEAK)
        return self.conv_out(h).astype(jnp.float32)


def frozen(discriminator: PatchDiscriminator) -> PatchDiscriminator:
    """Returns the critic without gradients to its parameters (they still flow to its input)."""
    graphdef, state = nnx.split(discriminator)
    return nnx.merge(graphdef, jax.tree.map(jax.lax.stop_gradient, nnx.to_pure_dict(state)))


def hinge_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The critic's loss: 0.5 (mean relu(1 - real) + mean relu(1 + fake)), a scalar."""
    return 0.5 * (jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean())
