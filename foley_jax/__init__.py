"""foley_jax: audio for silent video (Diff-Foley), and audio with video (MM-Diffusion), in JAX.

Front doors: `python -m foley_jax.main` (train and evaluate), `foley_jax.sample` (Python API and
command line), `python -m foley_jax.convert` (official PyTorch checkpoints).
"""

__version__ = "0.1.0"
