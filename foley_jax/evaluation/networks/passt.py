"""PaSST: 768 numbers and 527 AudioSet classes of ten seconds of audio.

The transformer `passt_s_swa_p16_128_ap476` of hear21passt, as it is used, without patch-out.
B batch, L audio samples, T F frames and mel bins, C channels.
Source: passt_hear21 5f1cce6, hear21passt/models/{passt,preprocess}.py.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.evaluation.networks import convolution
from foley_jax.layers import dense, encoder_block, norm
from foley_jax.media import mel_banks

RATE_HZ = 32000
NUM_SAMPLES = 320000  # 10 s: positions for no more
NUM_CLASSES = 527
WIDTH = 768
_FFT, _WINDOW, _HOP, _MELS, _FRAMES = 1024, 800, 320, 128, 998
_HIGH_HZ = 15000.0  # half the rate less 1 kHz, which training shifts
_PREEMPHASIS = 0.97
_PATCH, _STRIDE = 16, 10
_EPSILON, _HEAD_EPSILON = 1e-6, 1e-5


def log_mels(audio_BL: jax.Array) -> jax.Array:
    """Standardised log mels: float [B, L] in [-1, 1] at 32 kHz -> float32 [B, 128, T].

    T = 1 + (L - 1) // 320: 1000 of ten seconds.
    """
    x = audio_BL[:, 1:] - _PREEMPHASIS * audio_BL[:, :-1]
    bank = mel_banks.kaldi(RATE_HZ, _FFT, _MELS, 0.0, _HIGH_HZ)
    mel_BTF = mel_banks.power_mels(x, bank, mel_banks.hann_symmetric(_WINDOW), _HOP)
    return ((jnp.log(mel_BTF + 1e-5) + 4.5) / 5.0).swapaxes(1, 2)  # [B, T, F] -> [B, F, T]


class Passt(nnx.Module):
    """Overlapping patches of a mel, two special tokens, twelve blocks."""

    def __init__(self, num_layers: int = 12, num_heads: int = 12, *, rngs: nnx.Rngs):
        rows, columns = ((size - _PATCH) // _STRIDE + 1 for size in (_MELS, _FRAMES))
        zeros = lambda *shape: nnx.Param(jnp.zeros(shape, jnp.float32))  # noqa: E731
        self.patch_embed = convolution.Conv(1, WIDTH, (_PATCH, _PATCH), stride=_STRIDE, rngs=rngs)
        self.cls_token, self.dist_token = zeros(1, 1, WIDTH), zeros(1, 1, WIDTH)
        self.new_pos_embed = zeros(1, 2, WIDTH)
        self.freq_new_pos_embed = zeros(1, WIDTH, rows, 1)  # channels first, as in the file
        self.time_new_pos_embed = zeros(1, WIDTH, 1, columns)
        self.blocks = nnx.List(
            [
                encoder_block.EncoderBlock(WIDTH, num_heads, epsilon=_EPSILON, rngs=rngs)
                for _ in range(num_layers)
            ]
        )
        self.norm = norm.layer_norm(WIDTH, epsilon=_EPSILON, rngs=rngs)
        self.head_norm = norm.layer_norm(WIDTH, epsilon=_HEAD_EPSILON, rngs=rngs)
        self.head = dense.dense(WIDTH, NUM_CLASSES, rngs=rngs)

    def tokens(self, mel_BFT: jax.Array) -> jax.Array:
        """Two special tokens and the patches, by rows of one frequency: [B, 2 + F*T, C].

        Raises:
          ValueError: more columns of patches than there are positions (99).
        """
        x = self.patch_embed(mel_BFT[..., None])  # [B, F, T, C]
        when, where = (
            p[...].transpose(0, 2, 3, 1) for p in (self.time_new_pos_embed, self.freq_new_pos_embed)
        )
        if x.shape[2] > when.shape[2]:
            raise ValueError(
                f"{x.shape[2]} columns of patches, PaSST has positions for {when.shape[2]} "
                f"({NUM_SAMPLES / RATE_HZ} s); cut the audio"
            )
        x = x + when[:, :, : x.shape[2]] + where
        special = jnp.concatenate([self.cls_token[...], self.dist_token[...]], axis=1)
        special = special + self.new_pos_embed[...]
        return encoder_block.with_token(special, x.reshape(x.shape[0], -1, WIDTH))

    def __call__(self, audio_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Embedding and logits of audio clips.

        Args:
          audio_BL: float [B, L] in [-1, 1] at 32 kHz, up to 10 s; av-benchmark fills shorter ones
            up with zeros.
        Returns:
          float32 [B, 768], and [B, 527] before the sigmoid.
        """
        x = self.tokens(log_mels(audio_BL.astype(jnp.float32)))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        embedding = (x[:, 0] + x[:, 1]) / 2
        return embedding, self.head(self.head_norm(embedding))
