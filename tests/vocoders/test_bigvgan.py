"""BigVGAN in miniature against plain torch functions, and the conversion of its weights."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from foley_jax.interop import fill, registry, weight_norm
from foley_jax.runtime import network as network_lib
from foley_jax.vocoders import alias_free, bigvgan

SMALL = {
    "num_mels": 5,
    "upsample_rates": (3, 2),
    "upsample_kernel_sizes": (7, 4),
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": (3, 5),
    "resblock_dilation_sizes": ((1, 3), (1, 2)),
}
VARIANTS = {
    "v1": {},
    "v2": {"use_tanh_at_final": False, "use_bias_at_final": False},
    "snake, single convolutions, linear": {
        "activation": "snake",
        "resblock": "2",
        "snake_logscale": False,
    },
}


def _state(fields):
    """A weight-normalised state dict of the official names, seeded."""
    rng = np.random.default_rng(0)
    state = {}

    def layer(name, shape, bias):
        state[f"{name}.weight_v"] = rng.standard_normal(shape)
        length = rng.uniform(0.5, 1.0, (shape[0], 1, 1))
        state[f"{name}.weight_g"] = length
        if bias:
            state[f"{name}.bias"] = rng.standard_normal(bias)

    def activation(name, channels):
        for part in ("alpha", "beta") if fields["activation"] == "snakebeta" else ("alpha",):
            state[f"{name}.act.{part}"] = rng.uniform(0.3, 1.0, channels)
        for part in ("upsample", "downsample.lowpass"):  # not symmetric, to see a reversal
            state[f"{name}.{part}.filter"] = rng.uniform(0.0, 0.2, (1, 1, 12))

    kernels = fields["resblock_kernel_sizes"]
    width = fields["upsample_initial_channel"]
    layer("conv_pre", (width, fields["num_mels"], 7), width)
    for i, k in enumerate(fields["upsample_kernel_sizes"]):
        layer(f"ups.{i}.0", (width, width // 2, k), width // 2)
        width //= 2
        for j, (size, dilations) in enumerate(zip(kernels, fields["resblock_dilation_sizes"])):
            block = f"resblocks.{i * len(kernels) + j}"
            names = ("convs",) if fields["resblock"] == "2" else ("convs1", "convs2")
            for m in range(len(dilations)):
                for name in names:
                    layer(f"{block}.{name}.{m}", (width, width, size), width)
            for m in range(len(dilations) * len(names)):
                activation(f"{block}.activations.{m}", width)
    activation("activation_post", width)
    layer("conv_post", (1, width, 7), 1 if fields["use_bias_at_final"] else 0)
    return {key: np.asarray(value, np.float32) for key, value in state.items()}


class _Torch:
    """The official forward pass, written with torch functions on a state dict."""

    def __init__(self, fields, state):
        self.fields = fields
        self.w = {key: torch.from_numpy(value) for key, value in state.items()}
        for key in [key for key in self.w if key.endswith("weight_v")]:
            layer = key.removesuffix("_v")
            self.w[layer] = torch._weight_norm(self.w[key], self.w[f"{layer}_g"], 0)

    def conv(self, x, name, dilation=1):
        weight = self.w[f"{name}.weight"]
        reach = dilation * (weight.shape[-1] - 1) // 2
        return F.conv1d(x, weight, self.w.get(f"{name}.bias"), padding=reach, dilation=dilation)

    def act(self, x, name):
        groups = x.shape[1]
        up = self.w[f"{name}.upsample.filter"].expand(groups, -1, -1)
        down = self.w[f"{name}.downsample.lowpass.filter"].expand(groups, -1, -1)
        alpha = self.w[f"{name}.act.alpha"][None, :, None]
        beta = self.w.get(f"{name}.act.beta", alpha[0, :, 0])[None, :, None]
        if self.fields["snake_logscale"]:
            alpha, beta = alpha.exp(), beta.exp()
        x = F.pad(x, (5, 5), mode="replicate")
        x = 2 * F.conv_transpose1d(x, up, stride=2, groups=groups)[..., 15:-15]
        x = x + torch.sin(x * alpha) ** 2 / (beta + 1e-9)
        return F.conv1d(F.pad(x, (5, 6), mode="replicate"), down, stride=2, groups=groups)

    def block(self, x, name, dilations):
        for m, d in enumerate(dilations):
            if self.fields["resblock"] == "2":
                x = x + self.conv(self.act(x, f"{name}.activations.{m}"), f"{name}.convs.{m}", d)
                continue
            y = self.conv(self.act(x, f"{name}.activations.{2 * m}"), f"{name}.convs1.{m}", d)
            y = self.act(y, f"{name}.activations.{2 * m + 1}")
            x = x + self.conv(y, f"{name}.convs2.{m}")
        return x

    def __call__(self, x):
        fields, count = self.fields, len(self.fields["resblock_kernel_sizes"])
        x = self.conv(x, "conv_pre")
        rates, kernels = fields["upsample_rates"], fields["upsample_kernel_sizes"]
        for i, (rate, k) in enumerate(zip(rates, kernels)):
            up = f"ups.{i}.0"
            weight, bias = self.w[f"{up}.weight"], self.w[f"{up}.bias"]
            x = F.conv_transpose1d(x, weight, bias, stride=rate, padding=(k - rate) // 2)
            dilations = fields["resblock_dilation_sizes"]
            several = [
                self.block(x, f"resblocks.{i * count + j}", d) for j, d in enumerate(dilations)
            ]
            x = sum(several) / count
        x = self.conv(self.act(x, "activation_post"), "conv_post")
        return torch.tanh(x) if fields["use_tanh_at_final"] else torch.clamp(x, -1, 1)


def _fields(variant):
    model = registry.kinds()["bigvgan"].model
    v1 = {"use_tanh_at_final": True, "use_bias_at_final": True}
    return {**{k: v for k, v in model.items() if k != "mel"}, **SMALL, **v1, **VARIANTS[variant]}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_converted_generator_matches_torch(variant):
    fields = _fields(variant)
    state = _state(fields)
    model = registry.from_state_dict("bigvgan", state, **fields)
    mel = np.random.default_rng(1).standard_normal((2, 5, 9)).astype(np.float32)
    with torch.no_grad():
        want = _Torch(fields, state)(torch.from_numpy(mel)).numpy()[:, 0]
    graphdef, params = nnx.split(model)
    run = filled.jit(lambda params, x: nnx.merge(graphdef, params)(x))
    got = np.asarray(run(nnx.to_pure_dict(params), mel.transpose(0, 2, 1)))
    assert got.shape == want.shape == (2, 9 * 6)
    inside = np.abs(want) < 1
    assert want.std() > 0.05 and inside.mean() > 0.5  # neither silent nor clipped throughout
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


def test_both_forms_of_weight_norm_fold_to_the_same_weights():
    state = _state(_fields("v1"))
    new = {}
    for key, value in state.items():
        key = key.replace("weight_g", "parametrizations.weight.original0")
        new[key.replace("weight_v", "parametrizations.weight.original1")] = value
    old, new = (weight_norm.fold(s) for s in (state, new))
    assert set(old) == set(new) and not any("weight_" in key for key in old)
    for key in old:
        np.testing.assert_array_equal(old[key], new[key])
    again = weight_norm.fold(old)  # weight norm removed: nothing to do
    assert all(again[key] is old[key] for key in old)


def test_conversion_is_strict():
    state = _state(_fields("v1"))
    del state["ups.1.0.weight_g"]
    state["extra.bias"] = np.zeros(3, np.float32)
    with pytest.raises(fill.ConversionError) as error:
        registry.from_state_dict("bigvgan", state, **_fields("v1"))
    for part in ("ups.1.0.weight_v", "extra.bias", "ups/1/0/kernel"):
        assert part in str(error.value)


def test_checkpoint_file_of_the_public_form_is_read(tmp_path):
    fields = _fields("v2")
    state = _state(fields)
    whole = {"generator": {key: torch.from_numpy(value) for key, value in state.items()}}
    torch.save(whole, tmp_path / "bigvgan_generator.pt")
    model = registry.load_torch("bigvgan", tmp_path / "bigvgan_generator.pt", **fields)
    got = model.resblocks[0].activations[1].up_filter[...]
    np.testing.assert_array_equal(
        got, state["resblocks.0.activations.1.upsample.filter"].reshape(-1)
    )


def test_filter_is_the_sources():
    got = alias_free.kaiser_sinc()
    # torch.kaiser_window and torch.sinc as the source combines them
    beta = 0.1102 * (2.285 * 5 * np.pi * 1.2 + 7.95 - 8.7)
    if 2.285 * 5 * np.pi * 1.2 + 7.95 <= 50.0:
        excess = 2.285 * 5 * np.pi * 1.2 + 7.95 - 21
        beta = 0.5842 * excess**0.4 + 0.07886 * excess
    window = torch.kaiser_window(12, beta=beta, periodic=False)
    want = window * torch.sinc(0.5 * (torch.arange(-6, 6) + 0.5))
    np.testing.assert_allclose(got, (want / want.sum()).numpy(), atol=1e-6)


def test_activation_folds_less_back():
    """sin^2 of a tone at 0.4 of the rate has its double at 0.8, which folds to 0.2."""
    t = np.arange(512)
    tone = (0.5 * np.sin(2 * np.pi * 0.4 * t)).astype(np.float32).reshape(1, -1, 1)
    module = alias_free.Activation1d(1)

    def part(y, frequency):
        y = np.asarray(y)[0, 56:456, 0]  # whole periods
        return np.abs(np.exp(-2j * np.pi * frequency * np.arange(len(y))) @ y)

    clean, raw = module(tone), module.act(jnp.asarray(tone))
    ratios = [part(y, 0.2) / part(y, 0.4) for y in (clean, raw)]
    assert ratios[0] < 0.6 * ratios[1], ratios  # the image of the tone leaves some
    low = (0.5 * np.sin(2 * np.pi * 0.05 * t)).astype(np.float32).reshape(1, -1, 1)
    error = np.asarray(module(low) - module.act(jnp.asarray(low)))[0, 16:-16]
    assert np.abs(error).max() < 0.02  # far from the band's edge nothing changes


@pytest.mark.slow
def test_fresh_generator_trains_filters_excepted():
    one = {"upsample_rates": (2,), "upsample_kernel_sizes": (4,)}
    blocks = {"resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1,),)}
    fields = {**SMALL, **one, **blocks}
    model = filled.module(lambda keys: bigvgan.BigVgan(**fields, rngs=keys))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params = jax.tree.map(lambda leaf: 0.3 * leaf, nnx.to_pure_dict(params))  # tanh stays open
    names = {path[-1] for path, _ in nnx.to_flat_state(rest)}
    assert names == {"up_filter", "down_filter"}

    def loss(params, x):
        return jnp.square(nnx.merge(graphdef, params, nnx.to_pure_dict(rest))(x)).mean()

    x = np.random.default_rng(0).standard_normal((1, 8, 5)).astype(np.float32)
    grads = filled.jit(jax.grad(loss))(params, x)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.any(grad), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"upsample_rates": (2,)}, "expected equal numbers"),
        ({"upsample_initial_channel": 6}, "cannot be halved 2 times"),
        ({"activation": "relu"}, "'relu', expected 'snake' or 'snakebeta'"),
        ({"resblock": "3"}, "'3', expected '1' or '2'"),
        ({"upsample_kernel_sizes": (8, 4)}, "a difference that is even"),
        ({"chanels": 3}, "BigVgan has no field chanels"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        network_lib.shapes(lambda keys: bigvgan.from_config({**SMALL, **fields}, rngs=keys))


def test_mel_of_another_width_is_refused():
    model = network_lib.shapes(lambda keys: bigvgan.BigVgan(**SMALL, rngs=keys))
    with pytest.raises(ValueError, match="expected 5 bins"):
        model(jnp.zeros((1, 4, 6)))
