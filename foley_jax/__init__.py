"""foley_jax: sound for silent video (Diff-Foley), and sound with video (MM-Diffusion), in JAX.

Front doors: `python -m foley_jax.main` (train and evaluate), `foley_jax.sample` (Python API and
command line), `python -m foley_jax.convert` (official PyTorch checkpoints).
"""

__version__ = "0.1.0"
