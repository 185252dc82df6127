# Environment of training on GPUs; sourced on every node before `python -m foley_jax.main`.
# shellcheck shell=bash

# Collectives are scheduled as early as their inputs are there, and hidden behind arithmetic.
XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_latency_hiding_scheduler=true"
export XLA_FLAGS

# The share of GPU memory that JAX takes at once; the rest is for NCCL and cuDNN.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"

# NCCL keeps fewer buffers: gradients need no more, activations need the memory.
export NCCL_NVLS_ENABLE="${NCCL_NVLS_ENABLE:-0}"

# Programs compiled once are found again after a restart.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/foley_jax/programs}"

# Python's output reaches the log line by line.
export PYTHONUNBUFFERED=1
