"""The notebook's sampling, full size: 25 steps, classifier-free guidance and classifier.

Preset 'official': zeros as null context, all 33 raw features into the classifier. The golden's own
float32 noise after 25 steps is 2.4e-6 relative (tests/README.md).
"""

import full_size
from goldens import fill
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.sampling import notebook, packed_windows, solve
from foley_jax.diff_foley.sampling import settings as settings_lib
from foley_jax.diffusion import schedule, windows
from foley_jax.interop import registry
from foley_jax.runtime import network

pytestmark = pytest.mark.slow
PREFIX = full_size.PREFIX
ATOL = 1e-3  # absolute, of unit deviation
SPEC = windows.WindowSpec(num_features=32, num_columns=64, feature_s=0.25, column_s=0.128)


def _network(kind: str, name: str) -> network.Network:
    return network.Network.of(registry.from_state_dict(kind, full_size.state(name)))


def _close(name: str, got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape, name
    scale = max(1.0, float(want.std()))
    worst = float(np.abs(got - want).max()) / scale
    relative = np.linalg.norm(got - want) / np.linalg.norm(want)
    print(f"{name:20s} worst {worst:.1e} of unit deviation, relative L2 {relative:.1e}")
    np.testing.assert_allclose(got / scale, want / scale, rtol=0, atol=ATOL, err_msg=name)


def test_double_guided_sampling_equals_the_notebook():
    ldm = _network("diff_foley/ldm", "ldm")
    classifier = _network("diff_foley/guidance_classifier", "classifier")
    features_RD = fill.unit_rows(fill.inp("e2e_feat", (1, 33, 512), PREFIX))[0]
    plan = notebook.windows(len(features_RD), SPEC)
    request = packed_windows.Request(plan, features_RD, "e2e", packed_windows.NoiseSeed(0))
    packed, _, batch = packed_windows.pack_windows([request], SPEC, max_batch=1)
    settings = settings_lib.Settings(preset="official")
    assert settings.aligned(True)
    program = solve.Program(
        schedule=schedule.scaled_linear(),
        prediction="eps",
        latent_shape=(16, 64, 4),
        steps=settings.steps,
        sampler=settings.sampler,
        preset=settings.preset,
        guided=True,
        batch=batch,
    )

    def run(model, classifier, *args):
        z_HWC = solve.solve(program, model, classifier, *args)
        return z_HWC, solve.decode(model, z_HWC, jnp.zeros(1, jnp.int32), width=64)

    x_T = np.moveaxis(fill.inp("e2e_xT", (1, 4, 16, 64), PREFIX)[0], 0, -1)
    scales = (jnp.float32(settings.guidance), jnp.float32(settings.alignment))
    z_HWC, mel_1FT = network.jit_pair(run, ldm, classifier)(packed, x_T, *scales, features_RD)
    with np.load(full_size.GOLDENS / "e2e.npz") as golden:
        _close("final latent", np.moveaxis(np.asarray(z_HWC), -1, 0)[None], golden["z0"])
        _close("decoded channel 0", np.asarray(mel_1FT), golden["spec_channel0"])
