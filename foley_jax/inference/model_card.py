"""The card of an exported model: a README.md with the head that the Hugging Face hub reads."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import ml_collections

FILE = "README.md"
UNKNOWN = "unknown"  # licence, until somebody fills it in
_FILL_IN = "*to be filled in*"

# stage -> (title, tags, what it does)
_AUDIO = "an audio clip in sync with a silent video"
_STAGES = {
    "ldm": ("Latent diffusion, video to audio", ("video-to-audio", "diff-foley"), _AUDIO),
    "distilled": ("Few-step latent diffusion", ("video-to-audio", "diff-foley"), _AUDIO),
    "cavp": (
        "Contrastive audio-video pretraining",
        ("audio-video", "diff-foley"),
        "features of video and of audio that agree where both belong together",
    ),
    "autoencoder": ("Autoencoder of mels", ("diff-foley",), "latents of log-mels, and mels again"),
    "alignment": (
        "Alignment classifier",
        ("audio-video", "diff-foley"),
        "the probability that audio belongs to a video, at its time",
    ),
    "vocoder": ("Vocoder", ("vocoder",), "a waveform from a log-mel"),
    "mm_diffusion": (
        "Coupled U-Net of audio and video",
        ("audio-video", "mm-diffusion"),
        "videos with audio from noise, or one for the other",
    ),
    "mm_super_resolution": (
        "Super-resolution of frames",
        ("super-resolution", "mm-diffusion"),
        "larger frames from small ones",
    ),
    "mmaudio": ("Flow matching, video and text to audio", ("video-to-audio", "mmaudio"), _AUDIO),
    "mmaudio_distilled": (
        "Few-step flow matching, video and text to audio",
        ("video-to-audio", "mmaudio"),
        _AUDIO,
    ),
    "mmaudio_vae": ("Mel autoencoder", ("autoencoder", "mmaudio"), "latents of log-mels, and back"),
}
# what sample.load gives takes a video
_CALLS = {"ldm", "distilled", "mmaudio", "mmaudio_distilled"}
_LIMITS = (
    "It is as good as its data: sounds, places and cameras that were not in there come out wrong.",
    "What it makes is synthetic; say so where it is published.",
    "Figures hold for their protocol and data, and are not to be compared with those of others.",
)


@dataclasses.dataclass(frozen=True)
class Figures:
    """Numbers by what they are of, and how they were measured.

    Attributes:
      protocol: one line.
      rows: name of a system or split -> metric -> value; None is absent.
    """

    protocol: str
    rows: Mapping[str, Mapping[str, float | None]]


def read_figures(file: str | os.PathLike) -> Figures:
    """Reads figures from `metrics.json` of an evaluation, or a plain {"protocol", metric: value}.

    Raises:
      OSError: no such file.
      ValueError: neither of the two.
    """
    try:
        found = json.loads(Path(file).read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}")
        protocol = found.get("protocol", _FILL_IN)
        if isinstance(found.get("systems"), dict):
            judges = f", which judges {found['judges']}" if found.get("judges") else ""
            rows = {name: dict(row) for name, row in found["systems"].items()}
            protocol = f"`{protocol}` of foley_jax.evaluation{judges}"
        else:
            rows = {"model": {key: v for key, v in found.items() if key != "protocol"}}
        values = [value for row in rows.values() for value in row.values()]
        if not values or not all(_is_figure(value) for value in values):
            raise ValueError("no figures, or some that are no numbers")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file} holds no figures ({error}); expected metrics.json of an evaluation, or "
            '{"protocol": "how they were measured", "metric": number, ...}'
        ) from error
    return Figures(str(protocol), rows)


def own_figures(run: str | os.PathLike, config: ml_collections.ConfigDict) -> Figures | None:
    """The newest evaluation that a run noted in its metrics.jsonl; None without one."""
    file = Path(run) / "metrics.jsonl"
    newest: dict[str, Any] = {}
    for line in file.read_text(errors="replace").splitlines() if file.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:  # a run was killed within the line
            continue
        if isinstance(record, dict) and record.get("split") == "eval":
            newest = record
    step, figures = newest.pop("step", None), {k: v for k, v in newest.items() if k != "split"}
    if not figures:
        return None
    split = config.get("data", {}).get("eval_split", "evaluation")
    protocol = f"the training's own evaluation after step {step}, on split `{split}`"
    return Figures(protocol, {"model": figures})


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def text(
    config: ml_collections.ConfigDict,
    *,
    step: int | None,
    parameters: int,
    figures: Figures | None = None,
    licence: str | None = None,
    parts: Sequence[str] = (),
    name: str = "DIR",
) -> str:
    """Returns the card.

    Args:
      config: of the run.
      step: finished updates; None if that is not known.
      parameters: how many numbers the weights are.
      figures: what was measured.
      licence: of the weights, as the hub spells it; by default to be filled in.
      parts: folders of other networks inside the exported one.
      name: of the exported folder.
    """
    task = config.get("task") or config.get("kind", "")
    title, tags, gives = _STAGES.get(task, (task, (), "what its stage trains"))
    head = ["---", f"license: {licence or UNKNOWN}", "library_name: foley_jax", "tags:"]
    head += [f"- {tag}" for tag in ("jax", "flax", *tags)] + ["---", ""]
    if not licence:
        head.insert(2, "# fill in the licence above, and its terms below")
    body = [f"# {title}", "", f"Stage `{task}` of foley_jax. It gives {gives}.", ""]
    body += [f"* Parameters: {parameters:,}, in `weights.safetensors`; fields in `config.json`."]
    body += [f"* Networks beside it: {', '.join(f'`{part}/`' for part in parts)}."] * bool(parts)
    body += [f"* Licence of the weights: {licence or _FILL_IN}.", "", *_training(config, step), ""]
    body += ["## Figures", "", *_table(figures), "", "## Limits", ""]
    body += [*(f"* {limit}" for limit in _LIMITS), "", *_loading(task, name)]
    return "\n".join([*head, *body]) + "\n"


def _training(config: ml_collections.ConfigDict, step: int | None) -> list[str]:
    """Lines about data and updates."""
    data = config.get("data", {})
    folder = Path(str(data.get("dir") or "")).name  # a path says nothing elsewhere
    named = f" (folder `{folder}`, split `{data.get('train_split', 'train')}`)" if folder else ""
    origin = f"; converted from `{config.kind}`" if config.get("kind") else ""
    lines = ["## Training", "", f"* Data: {_FILL_IN}{named}."]
    done = "not known" if step is None else f"{step:,} updates"
    of = f" of {config.total_steps:,}" if step is not None and config.get("total_steps") else ""
    batch = f", batch {config.batch_size:,}" if config.get("batch_size") else ""
    averaged = f", averaged with decay {config.ema_decay:g}" if config.get("ema_decay") else ""
    lines += [f"* Steps: {done}{of}{batch}{averaged}{origin}."]
    audio, video = config.get("audio"), config.get("video")
    if audio:
        lines += [f"* Audio: {audio.sample_rate_hz:g} Hz, {audio.get('num_mels', '?')} mels."]
    if video:
        size = (
            "" if config.get("cavp") else f", {video.height}x{video.width}"
        )  # CAVP's, not its own
        lines += [f"* Video: {video.fps:g} frames/s{size}."]
    return lines


def _table(figures: Figures | None) -> list[str]:
    if figures is None:
        return [f"{_FILL_IN}: figures, each with its protocol and data."]
    names = list(dict.fromkeys(name for row in figures.rows.values() for name in row))
    lines = [f"Protocol: {figures.protocol}.", ""]
    lines += ["| | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for name, row in figures.rows.items():
        lines.append(f"| {name} | " + " | ".join(_shown(row.get(key)) for key in names) + " |")
    return lines


def _shown(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _loading(task: str, name: str) -> list[str]:
    lines = ["## Use", "", "    from foley_jax import sample", ""]
    if task in _CALLS:
        lines += [
            f'    model = sample.load("{name}")   # this folder, or "hub:OWNER/NAME"',
            '    model("silent.mp4").save("with_audio.mp4")',
        ]
    elif task == "mm_diffusion":
        lines += [
            f'    model = sample.load("{name}")   # this folder, or "hub:OWNER/NAME"',
            "    model.generate(num_samples=1)",
        ]
    else:
        lines[2] = f"Give this folder (`{name}`) where foley_jax takes a run of this stage."
        lines = lines[:3]
    return [*lines, "", "`sha256sum -c SHA256SUMS` compares the files; loading does so too."]
