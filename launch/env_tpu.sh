# Environment of training on TPU; sourced on every host before `python -m foley_jax.main`.
# shellcheck shell=bash

# Collectives of one step run beside its arithmetic instead of before or after it: parameters
# sharded over `fsdp` are gathered, and gradients scattered, while the layer before is computed.
LIBTPU_INIT_ARGS="${LIBTPU_INIT_ARGS:-}\
 --xla_tpu_enable_async_collective_fusion=true\
 --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true\
 --xla_tpu_enable_async_collective_fusion_multiple_steps=true\
 --xla_tpu_overlap_compute_collective_tc=true\
 --xla_enable_async_all_gather=true"
export LIBTPU_INIT_ARGS

# Programs compiled once are found again after a restart: set it to a folder of the bucket, so that
# a new machine has them, too.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/foley_jax/programs}"

# Python's output reaches the log line by line.
export PYTHONUNBUFFERED=1
