"""The configs of MM-Diffusion's stages: the paper's networks, and what is copied into them."""

import filled
from flax import nnx
import pytest

from configs import mm_diffusion, mm_super_resolution
from foley_jax.layers import configured
from foley_jax.mm_diffusion.models import coupled_unet, super_resolution
from foley_jax.training import task as task_lib
from tests.mm_diffusion import sounding_config

TRAINING_ONLY = {"dropout": 0.1, "remat": True}  # beside the constructor's defaults


@pytest.mark.parametrize("variant", ["", "released"])
@pytest.mark.parametrize(
    ("config", "network"),
    [
        (mm_diffusion, coupled_unet.CoupledUNet),
        (mm_super_resolution, super_resolution.SuperResolution),
    ],
)
def test_paper_configs_are_the_official_networks(config, network, variant):
    model = config.get_config(variant).model.to_dict()
    defaults = configured.defaults(network)
    changed = {name for name, value in model.items() if value != defaults[name]}
    assert changed <= set(TRAINING_ONLY)
    assert all(model[name] == TRAINING_ONLY[name] for name in changed)


@pytest.mark.parametrize("variant", ["", "released", "demo"])
@pytest.mark.parametrize("config", [mm_diffusion, mm_super_resolution])
def test_every_variant_is_a_task(config, variant):
    task_lib.resolve(config.get_config(variant)).transform(train=True)


@pytest.mark.parametrize("config", [mm_diffusion, mm_super_resolution])
def test_unknown_variant_names_those_there_are(config):
    with pytest.raises(ValueError, match="no variant 'huge'; variants: '', .*'released', 'demo'"):
        config.get_config("huge")


def test_super_resolution_starts_from_every_part_of_the_upsampler():
    params = nnx.to_pure_dict(nnx.state(filled.model(sounding_config.tiny_upscaler()), nnx.Param))
    init_from = mm_super_resolution.get_config().init_from.to_dict()
    assert set(init_from) == set(params)
    assert all(target == f"runs/upsampler:{part}" for part, target in init_from.items())


def test_released_weights_saw_mirrored_and_aliased_images():
    config = mm_diffusion.get_config("released")
    assert config.data.mirror and not config.video.antialias
    assert mm_super_resolution.get_config("released").data.degradation.preset == "official"
