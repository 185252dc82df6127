"""Tests what the process that `forked` forks from imports beforehand.

Nothing here touches a device.
"""

import jax
import toy_config  # noqa: F401
import toy_task  # noqa: F401

import configs.base  # noqa: F401
from foley_jax.runtime import watchdog  # noqa: F401
from foley_jax.training import loop  # noqa: F401

jax.config.update("jax_enable_compilation_cache", False)  # processes of a run must not share it
