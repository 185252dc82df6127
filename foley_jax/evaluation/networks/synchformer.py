"""Synchformer: by how much the audio of a video is late or early; av-benchmark's DeSync.

Two encoders give eight tokens a video segment and six an audio segment of 0.64 s, one every 0.32 s;
a small transformer over 14 of each chooses among 21 offsets. The visual encoder stands in
`mmaudio/models/synchformer.py`.
B batch, S segments, L audio samples, T F time and mel bins, C channels, P tokens.
Source: Synchformer (v-iashin) b66668a; av-benchmark av_bench/synchformer/.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.evaluation.networks import convolution
from foley_jax.layers import dense, encoder_block, norm
from foley_jax.media import mel, mel_banks
from foley_jax.mmaudio.models import synchformer as visual

RATE_HZ = 16000
SEGMENT_SAMPLES, STEP_SAMPLES = 10240, 5120  # 0.64 s every 0.32 s
NUM_SEGMENTS = 14  # the joint transformer has positions for no other number: 4.8 s
NUM_OFFSETS = 21
WIDTH = visual.WIDTH
VIDEO_STEPS, AUDIO_STEPS = 8, 6  # tokens a segment
_FFT, _WINDOW, _HOP, _MELS, _FRAMES = 1024, 400, 160, 128, 66
_HIGH_HZ = 8000.0
_LOG_OFFSET = 1e-6
_MEAN, _STD = -4.2677393, 4.5689974  # of the log mels, AST's of AudioSet
_PATCH, _STRIDE = 16, 10
_AST_EPSILON, _JOINT_EPSILON = 1e-12, 1e-5


def audio_segments(audio_BL: jax.Array) -> jax.Array:
    """Overlapping segments: [B, L] -> [B, S, 10240], S = (L - 10240) // 5120 + 1.

    Raises:
      ValueError: not one whole segment.
    """
    count = (audio_BL.shape[-1] - SEGMENT_SAMPLES) // STEP_SAMPLES + 1
    if count < 1:
        raise ValueError(
            f"audio has {audio_BL.shape[-1]} samples, Synchformer needs {SEGMENT_SAMPLES} "
            f"({SEGMENT_SAMPLES / RATE_HZ} s at {RATE_HZ} Hz)"
        )
    starts = range(0, count * STEP_SAMPLES, STEP_SAMPLES)
    return jnp.stack([audio_BL[:, start : start + SEGMENT_SAMPLES] for start in starts], axis=1)


def log_mels(segments_BL: jax.Array) -> jax.Array:
    """Standardised log mels of segments, each by itself: [B, 10240] -> float32 [B, 128, 66].

    The last column is a 0 put in before the standardisation, hence 0.467, not silence.
    """
    bank = mel_banks.htk(RATE_HZ, _FFT, _MELS, 0.0, _HIGH_HZ)
    mel_BTF = mel_banks.power_mels(segments_BL, bank, mel.hann(_WINDOW), _HOP)
    log_BTF = jnp.log(mel_BTF + _LOG_OFFSET)[:, :_FRAMES]
    log_BTF = jnp.pad(log_BTF, ((0, 0), (0, _FRAMES - log_BTF.shape[1]), (0, 0)))
    return ((log_BTF - _MEAN) / (2 * _STD)).swapaxes(1, 2)  # [B, T, F] -> [B, F, T]


def embed_video(model: visual.VisualEncoder, video_BTHWC: jax.Array) -> jax.Array:
    """Features of all segments of videos: uint8 [B, T, 224, 224, 3] -> [B, S, 8, 768].

    One segment at a time, whose activations take 50 MB in float32.
    """

    def embed(video_THWC: jax.Array) -> jax.Array:
        encode = lambda segment: model(visual.standardise(segment)[None])[0]  # noqa: E731
        return jax.lax.map(encode, visual.segments(video_THWC))

    return jax.lax.map(embed, video_BTHWC)


class AudioEncoder(nnx.Module):
    """AST, then one token for every column of patches. Source: Synchformer `AST`, with HF's AST."""

    def __init__(self, num_layers: int = 12, num_heads: int = 12, *, rngs: nnx.Rngs):
        self.grid = tuple((size - _PATCH) // _STRIDE + 1 for size in (_MELS, _FRAMES))  # (f, t)
        num_tokens = 2 + self.grid[0] * self.grid[1]
        self.patches = convolution.Conv(1, WIDTH, (_PATCH, _PATCH), stride=_STRIDE, rngs=rngs)
        self.cls_token, self.distillation_token = (
            nnx.Param(jnp.zeros((1, 1, WIDTH), jnp.float32)) for _ in range(2)
        )
        self.position_embeddings = nnx.Param(jnp.zeros((1, num_tokens, WIDTH), jnp.float32))
        self.layers = nnx.List(
            [
                encoder_block.EncoderBlock(
                    WIDTH, num_heads, epsilon=_AST_EPSILON, fused=False, rngs=rngs
                )
                for _ in range(num_layers)
            ]
        )
        self.norm = norm.layer_norm(WIDTH, epsilon=_AST_EPSILON, rngs=rngs)
        self.freq_attn_agg = visual.Aggregator(WIDTH, num_heads, rngs=rngs)

    def tokens(self, mel_BFT: jax.Array) -> jax.Array:
        """Two special tokens and the patches, by rows of one frequency: [B, 2 + F*T, C]."""
        x = self.patches(mel_BFT[..., None])  # [B, F, T, C]
        x = x.reshape(x.shape[0], -1, WIDTH)
        x = encoder_block.with_token(
            self.cls_token, encoder_block.with_token(self.distillation_token, x)
        )
        return x + self.position_embeddings[...]

    def __call__(self, segments_BL: jax.Array) -> jax.Array:
        """Features of segments: float [B, 10240] in [-1, 1] at 16 kHz -> [B, 6, 768]."""
        x = self.tokens(log_mels(segments_BL))
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)[:, 2:]
        b, (f, t) = x.shape[0], self.grid
        # [B, F*T, C] -> [B, T, F, C] -> [B*T, F, C] -> [B*T, C] -> [B, T, C]
        x = x.reshape(b, f, t, WIDTH).swapaxes(1, 2).reshape(b * t, f, WIDTH)
        return self.freq_attn_agg(x).reshape(b, t, WIDTH)

    def embed(self, audio_BL: jax.Array) -> jax.Array:
        """Features of all segments of audio clips: [B, L] -> [B, S, 6, 768]."""
        segments = audio_segments(audio_BL)
        x = self(segments.reshape(-1, SEGMENT_SAMPLES))
        return x.reshape(*segments.shape[:2], *x.shape[1:])


class Joint(nnx.Module):
    """The transformer over both, and its 21 classes. Source: Synchformer `GlobalTransformer`."""

    def __init__(self, num_layers: int = 3, num_heads: int = 8, *, rngs: nnx.Rngs):
        num_tokens = 2 + NUM_SEGMENTS * (VIDEO_STEPS + AUDIO_STEPS)
        self.vproj, self.aproj = (dense.dense(WIDTH, WIDTH, rngs=rngs) for _ in range(2))
        self.vis_in_lnorm, self.aud_in_lnorm, self.ln_f = (
            norm.layer_norm(WIDTH, epsilon=_JOINT_EPSILON, rngs=rngs) for _ in range(3)
        )
        self.OFF_tok, self.MOD_tok = (
            nnx.Param(jnp.zeros((1, 1, WIDTH), jnp.float32)) for _ in range(2)
        )
        self.pos_emb = nnx.Param(jnp.zeros((1, num_tokens, WIDTH), jnp.float32))
        self.blocks = nnx.List(
            [
                encoder_block.EncoderBlock(
                    WIDTH, num_heads, epsilon=_JOINT_EPSILON, fused=False, rngs=rngs
                )
                for _ in range(num_layers)
            ]
        )
        self.off_head = dense.dense(WIDTH, NUM_OFFSETS, rngs=rngs)

    def __call__(self, video_BSPC: jax.Array, audio_BSPC: jax.Array) -> jax.Array:
        """Logits of the 21 offsets of `statistics.desync.GRID_S`.

        Args:
          video_BSPC: visual features [B, 14, 8, 768].
          audio_BSPC: audio features [B, 14, 6, 768].
        Returns:
          float32 [B, 21].
        Raises:
          ValueError: another number of segments or tokens.
        """
        shapes = (NUM_SEGMENTS, VIDEO_STEPS, WIDTH), (NUM_SEGMENTS, AUDIO_STEPS, WIDTH)
        if (video_BSPC.shape[1:], audio_BSPC.shape[1:]) != shapes:
            raise ValueError(
                f"features are {video_BSPC.shape} and {audio_BSPC.shape}, expected [B, "
                f"{shapes[0]}] and [B, {shapes[1]}]: Synchformer judges {NUM_SEGMENTS} segments"
            )
        b = video_BSPC.shape[0]
        v = self.vis_in_lnorm(self.vproj(video_BSPC).reshape(b, -1, WIDTH))
        a = self.aud_in_lnorm(self.aproj(audio_BSPC).reshape(b, -1, WIDTH))
        a = encoder_block.with_token(self.MOD_tok, a)
        x = (
            encoder_block.with_token(self.OFF_tok, jnp.concatenate([v, a], axis=1))
            + self.pos_emb[...]
        )
        for block in self.blocks:
            x = block(x)
        return self.off_head(self.ln_f(x)[:, 0])


class Synchformer(nnx.Module):
    """The whole network."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.vfeat_extractor = visual.VisualEncoder(rngs=rngs)
        self.afeat_extractor = AudioEncoder(rngs=rngs)
        self.joint = Joint(rngs=rngs)

    def __call__(self, video_BSFHWC: jax.Array, audio_BSL: jax.Array) -> jax.Array:
        """Logits of the 21 offsets, float32 [B, 21].

        Args:
          video_BSFHWC: float [B, 14, 16, 224, 224, 3] in [-1, 1], segments.
          audio_BSL: float [B, 14, 10240], segments.
        """
        features = []
        for encode, x in (
            (self.vfeat_extractor, video_BSFHWC),
            (self.afeat_extractor, audio_BSL),
        ):
            y = encode(x.reshape(-1, *x.shape[2:]))  # [B, S, ...] -> [B*S, P, C]
            features.append(y.reshape(*x.shape[:2], *y.shape[1:]))
        return self.joint(*features)
