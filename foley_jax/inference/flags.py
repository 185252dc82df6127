"""Arguments of the commands that generate: settings of all systems, and of each."""

import argparse
import dataclasses
from typing import TypeVar

from foley_jax.diff_foley.sampling import settings as foley_settings
from foley_jax.mm_diffusion.sampling import settings as sounding_settings
from foley_jax.mmaudio.sampling import settings as text_settings
from foley_jax.runtime import limits

SettingsOf = TypeVar(
    "SettingsOf", foley_settings.Settings, sounding_settings.Settings, text_settings.Settings
)


def of_both(p: argparse.ArgumentParser) -> None:
    """Adds what both systems and both commands of generation know."""
    about = "0 to 2**64 - 1, each another noise (default: 0)"
    p.add_argument("--seed", type=limits.seed_argument, default=0, help=about)
    p.add_argument("--steps", type=int, help="solver steps (default: the sampler's own)")
    p.add_argument("--sampler", help="dpm_solver (default), ddim, or one of the system's others")
    p.add_argument(
        "--preset",
        choices=("default", "official"),
        default="default",
        help="official: reproduce the published code with its mistakes",
    )
    p.add_argument("--dtype", choices=("float32", "bfloat16"), help="compute type")
    p.add_argument(
        "--devices",
        type=limits.count_argument,
        help="of this process that share the work (default: all; of a CPU 1)",
    )


def of_foley(p: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds the networks and scales of Diff-Foley."""
    p.add_argument("--cavp", help="workdir of the CAVP run; default: the one the model names")
    p.add_argument(
        "--classifier",
        action="append",
        help="workdir or file of an alignment classifier; once more for one that only scores",
    )
    p.add_argument(
        "--vocoder", help="workdir of a vocoder run or converted BigVGAN (default: Griffin-Lim)"
    )
    p.add_argument(
        "--guidance",
        type=limits.number_argument,
        default=4.5,
        help="classifier-free guidance scale (default: 4.5)",
    )
    p.add_argument(
        "--alignment",
        type=limits.number_argument,
        default=50.0,
        help="scale of the classifier's guidance, where there is one; 0 = off (default: 50)",
    )
    p.add_argument(
        "--cache_interval",
        type=int,
        default=1,
        help="compute the U-Net's deep layers once in so many steps: 2 or 3 save time and change "
        "the audio a little (default: 1, exact)",
    )
    p.add_argument(
        "--cache_depth",
        type=int,
        default=1,
        help="entries of the way down, and up, that are computed at every step (default: 1)",
    )


def of_sounding(p: argparse._ArgumentGroup) -> None:
    """Adds the settings of MM-Diffusion."""
    p.add_argument(
        "--super_resolution", help="workdir or official file of a network that enlarges images"
    )
    p.add_argument(
        "--sr_steps",
        type=int,
        default=sounding_settings.UPSCALING_STEPS,
        help="its steps for every frame (default: 25)",
    )
    p.add_argument(
        "--method",
        choices=sounding_settings.METHODS,
        default="gradient",
        help="how a given video or audio conditions the other (default: gradient)",
    )
    p.add_argument(
        "--scale",
        type=limits.number_argument,
        help="strength of the gradient, per squared-error sum (default: 0.3); with "
        "--preset=official the scripts' --classifier_scale (default: 3)",
    )


def of_text_foley(p: argparse._ArgumentGroup) -> None:
    """Adds the settings of MMAudio, but for the guidance that it shares with Diff-Foley."""
    p.add_argument("--text", default="", help="what is heard; without inputs it is all there is")
    p.add_argument("--negative_text", default="", help="what is not to be heard")
    p.add_argument(
        "--duration",
        type=limits.number_argument,
        help="seconds of audio, from the beginning (default: the whole video; 8 without one)",
    )


def settings(kind: type[SettingsOf], args: argparse.Namespace) -> SettingsOf:
    """Returns the settings of a system that are among parsed arguments.

    Args:
      kind: the class of a system's settings.
    Raises:
      ValueError: one is out of range.
    """
    fields = [field.name for field in dataclasses.fields(kind)]
    given = {name: getattr(args, name, None) for name in fields}
    return kind(**{k: v for k, v in given.items() if v is not None})
