"""The page of `python -m foley_jax.serve`: a form, a queue, and takes side by side."""

from collections.abc import Callable, Sequence
import dataclasses
from pathlib import Path
import shutil
import tempfile
import threading
from typing import Any

import gradio as gr

from foley_jax.inference import foley as foley_lib
from foley_jax.inference import load, sounding_video, text_foley, web_guard
from foley_jax.inference import takes as takes_lib
from foley_jax.runtime import limits as checks

WAYS = ("from noise", "audio for the video", "video for the audio")  # of MM-Diffusion
PROGRESS = gr.Progress()  # gradio finds it among a function's defaults
STAGES = {
    "features": 0.1,
    "diffusion": 0.3,
    "autoencoder": 0.7,
    "super-resolution": 0.7,
    "vocoder": 0.8,
    "scores": 0.95,
}


@dataclasses.dataclass(frozen=True)
class Server:
    """A model, what a request may ask of it, and where its files lie."""

    model: "foley_lib.Foley | text_foley.TextFoley | sounding_video.SoundingVideo"
    limits: takes_lib.Limits
    folders: takes_lib.Folders
    visitors: takes_lib.Visitors = dataclasses.field(default_factory=takes_lib.Visitors)

    def foley(self, clock, video, text, negative_text, seed, steps, guidance, count, mix, edit):
        """Audio for a video, `count` takes."""
        limits = self.limits
        edits = edit.options(can_edit=self.can_edit(), mix=mix)
        path = takes_lib.check_video(video, limits)
        options = {
            "seed": checks.seed(int(seed)),
            "steps": within("steps", steps, limits.most_steps),
            "guidance": checks.real("guidance", guidance),
            "num_samples": within("takes", count, limits.most_takes),
            **edits,
        }
        if isinstance(self.model, text_foley.TextFoley):
            options |= {"text": text, "negative_text": negative_text}
        else:
            options |= {"keep_best": options["num_samples"]}
        clips = self.model.within(clock.run())(path, **options)
        return clips if isinstance(clips, list) else [clips], mix

    def sounding(self, clock, way, video, audio, seed, steps, count):
        """Sounding videos."""
        options = {"seed": checks.seed(int(seed))}
        options["steps"] = within("steps", steps, self.limits.most_steps)
        model = self.model.within(clock.run())
        if way == WAYS[0]:
            number = within("takes", count, self.limits.most_takes)
            return model.generate(number, **options), takes_lib.Mix()
        if way == WAYS[1]:
            path = takes_lib.check_video(video, self.limits)
            return [model.audio_for(path, **options)], takes_lib.Mix()
        path = takes_lib.check_audio(audio, self.limits)
        return [model.video_for(path, **options)], takes_lib.Mix()

    def clock(self, progress: gr.Progress, left: threading.Event) -> takes_lib.Clock:
        """Returns what ends a request when its time is over, or its visitor has left."""
        return takes_lib.Clock(
            lambda stage: progress(STAGES[stage], desc=stage), self.limits.request_s, left
        )

    def student_steps(self) -> int | None:
        """Returns the only steps that a distilled model takes; None of others."""
        model = self.model.model
        return getattr(getattr(model, "sampler", model), "student_steps", None)

    def can_edit(self) -> bool:
        """Returns whether the model keeps audio that a video has already."""
        return isinstance(self.model, (foley_lib.Foley, text_foley.TextFoley))

    def answer(
        self,
        make: Callable[..., tuple[Sequence[Any], takes_lib.Mix]],
        request: gr.Request | None,
        progress: gr.Progress,
        upload: str | None,
        *args: Any,
    ) -> list[Any]:
        """What a request's outputs show: each take's video and image, all files, the scores."""
        folder, session = self.folders.new(), request and request.session_hash
        try:
            with self.visitors.waiting(session) as left:
                clips, mix = make(self.clock(progress, left), *args)
            made = takes_lib.write(list(clips), mix, folder)
        except Exception as error:  # noqa: BLE001, every failure is told to its visitor alone
            self.folders.drop(folder)
            said = takes_lib.told(error, *map(Path, filter(None, [upload])))
            raise gr.Error(str(said), print_exception=False) from error
        shown: list[Any] = []
        for number in range(self.limits.most_takes):
            take = made[number] if number < len(made) else None
            shown.append(gr.Column(visible=take is not None))
            shown += map(str, (take.played, take.wav, take.image)) if take else (None,) * 3
        files = [str(path) for take in made for path in (take.played, take.wav)]
        return [*shown, files, {f"take {n}": t.scores for n, t in enumerate(made, 1)}]


def within(name: str, value: float, most: int) -> int:
    """Returns a whole number from 1 to `most`; raises ValueError for others."""
    return checks.whole(name, int(value), 1, most)


def page(server: Server, title: str) -> gr.Blocks:
    """The page of a model."""
    kept_s = int(server.limits.kept_s)
    blocks = gr.Blocks(
        title=title, analytics_enabled=False, delete_cache=(max(1, kept_s // 2), kept_s)
    )
    sounding = isinstance(server.model, sounding_video.SoundingVideo)
    with blocks:
        gr.Markdown(f"# {title}\n{_about(server, sounding)}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                bind = _sounding_form(server) if sounding else _foley_form(server)
            with gr.Column(scale=3, min_width=320):
                bind(_outputs(server))

        def leave(request: gr.Request) -> None:
            server.visitors.leave(request.session_hash)

        blocks.unload(leave)
    return blocks


def _about(server: Server, sounding: bool) -> str:
    limits = server.limits
    what = "Sounding videos." if sounding else "Audio for your video."
    return (
        f"{what} At most {limits.most_s:.0f} s and {limits.most_mb:.0f} MB a file; what you upload "
        f"and what is made is removed after {limits.kept_s / 60:.0f} minutes."
    )


def _numbers(server: Server, steps: int) -> list[gr.components.Component]:
    """Seed, steps and takes."""
    only = server.student_steps()
    label = "steps" if only is None else f"steps (the model was distilled to {only})"
    return [
        gr.Number(0, label="seed", precision=0, minimum=0),
        gr.Slider(
            1, server.limits.most_steps, only or steps, step=1, label=label, interactive=not only
        ),
        gr.Slider(1, server.limits.most_takes, 1, step=1, label="takes"),
    ]


def _outputs(server: Server) -> list[gr.blocks.Block]:
    """For every take a column, its video, waveform and image; then the files, the scores."""
    shown: list[gr.blocks.Block] = []
    sounding = isinstance(server.model, sounding_video.SoundingVideo)
    image = "frames and waveform" if sounding else "mel"
    with gr.Row():
        for number in range(1, server.limits.most_takes + 1):
            with gr.Column(min_width=280, visible=number == 1) as column:
                video = gr.Video(label=f"take {number}")
                audio = gr.Audio(
                    label=f"take {number}: waveform", type="filepath", buttons=["download"]
                )
                picture = gr.Image(
                    label=f"take {number}: {image}",
                    show_label=False,  # it would lie over the axes
                    buttons=["download", "fullscreen"],
                )
                shown += [column, video, audio, picture]
    files = gr.Files(label="download (mp4, wav)", interactive=False)
    return [*shown, files, gr.JSON(label="scores")]


def _foley_form(server: Server) -> Callable[[list[gr.blocks.Block]], Any]:
    """The form; returns what ties it to the outputs."""
    video = web_guard.uploaded(gr.Video(label="video", sources=["upload", "webcam"]))
    has_text = isinstance(server.model, text_foley.TextFoley)
    text = gr.Textbox(label="what is heard", visible=has_text)
    negative = gr.Textbox(label="what is not to be heard", visible=has_text)
    seed, steps, count = _numbers(server, 25)
    is_student = server.student_steps() is not None  # it has its guidance folded in
    guidance = gr.Slider(1, 10, 4.5, step=0.5, label="guidance", visible=not is_student)
    level = gr.Slider(
        takes_lib.SILENT_DB,
        0,
        takes_lib.SILENT_DB,
        step=1,
        label="original audio under it, dB (-60: replaced)",
    )
    fade = gr.Slider(0, 2, 0, step=0.1, label="fade in and out, seconds")
    edit = _edit_fields(server)
    button = gr.Button("Make audio", variant="primary")

    def audio_for_video(
        video: str,
        text: str,
        negative_text: str,
        seed: int,
        steps: int,
        guidance: float,
        takes: int,
        level_db: float,
        fade_s: float,
        start_s: float = 0.0,
        stop_s: float = 0.0,
        vary: float = 1.0,
        progress=PROGRESS,
        request: gr.Request = None,
    ):
        """Audio for a video: for each take a video, its audio and mel, then files, scores."""
        own = (takes_lib.Mix(level_db, fade_s), takes_lib.Edit(start_s or 0.0, stop_s or 0.0, vary))
        args = (video, text, negative_text, seed, steps, guidance, takes, *own)
        return server.answer(server.foley, request, progress, video, *args)

    inputs = [video, text, negative, seed, steps, guidance, count, level, fade, *edit]
    return lambda out: button.click(
        audio_for_video, inputs, out, api_name="audio_for_video", show_progress_on=out[1]
    )


def _edit_fields(server: Server) -> list[gr.components.Component]:
    """What is made anew of a video's own audio: a span's start and stop, or a share of it all."""
    can_vary = server.student_steps() is None  # a student begins with noise alone
    about = (
        "Give a span to make it anew and keep the rest to the sample; with a start where the audio "
        "ends, it is extended."
    )
    if can_vary:
        about += " Or vary the whole: the less, the nearer to what it was."
    with gr.Accordion("edit the clip's own audio", open=False, visible=server.can_edit()):
        gr.Markdown(about)
        with gr.Row():  # a browser sends 0 for a number that is left empty
            start = gr.Number(0, label="from, s", minimum=0, min_width=120)
            stop = gr.Number(0, label="to, s (0: the end)", minimum=0, min_width=120)
        vary = gr.Slider(0.05, 1, 1, step=0.05, label="vary (1: all anew)", visible=can_vary)
    return [start, stop, vary]


def _sounding_form(server: Server) -> Callable[[list[gr.blocks.Block]], Any]:
    """The form; returns what ties it to the outputs."""
    way = gr.Radio(WAYS, value=WAYS[0], label="what")
    video = gr.Video(label="video", sources=["upload", "webcam"], visible=False)
    audio = gr.Audio(label="audio", type="filepath", visible=False)
    video, audio = web_guard.uploaded(video), web_guard.uploaded(audio)
    seed, steps, count = _numbers(server, 20)
    button = gr.Button("Make", variant="primary")

    def fit(way: str) -> tuple[gr.Video, gr.Audio, gr.Slider]:
        """Shows what the chosen way takes; an input has one take."""
        shown = (way == WAYS[1], way == WAYS[2], way == WAYS[0])
        kinds = (gr.Video, gr.Audio, gr.Slider)
        return tuple(kind(visible=is_shown) for kind, is_shown in zip(kinds, shown))

    way.change(fit, way, [video, audio, count], queue=False, api_visibility="private")

    def sounding_video(
        way: str,
        video: str,
        audio: str,
        seed: int,
        steps: int,
        takes: int,
        progress=PROGRESS,
        request: gr.Request = None,
    ):
        """Sounding videos: for each take a video, audio and contact sheet, then files, scores."""
        args = (way, video, audio, seed, steps, takes)
        return server.answer(server.sounding, request, progress, video or audio, *args)

    inputs = [way, video, audio, seed, steps, count]
    return lambda out: button.click(
        sounding_video, inputs, out, api_name="sounding_video", show_progress_on=out[1]
    )


def serve(
    source: str,
    limits: takes_lib.Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    waiting: int = 20,
    wait: bool = True,
    **networks: Any,
) -> tuple[gr.Blocks, str]:
    """Loads a model and serves its page; requests are worked on one after the other.

    Args:
      source: see `sample.load`.
      limits: of a request.
      host, port: to bind to; port 0 takes any that is free.
      waiting: requests in the queue; more are refused.
      wait: return only when the server is stopped.
      networks: see `sample.load`.
    Returns:
      The page, and its address.
    """
    model = load.any_system(source, **networks)
    root = Path(tempfile.mkdtemp(prefix="foley_jax_"))
    server = Server(model, limits, takes_lib.Folders(root, limits.kept_s))
    blocks = page(server, f"foley_jax: {Path(source).name}")
    blocks.queue(max_size=waiting, default_concurrency_limit=1)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port or None,
        prevent_thread_lock=not wait,
        share=False,
        show_error=False,
        max_file_size=int(limits.most_mb * 1e6),
        allowed_paths=[str(root)],
        quiet=True,
        enable_monitoring=False,
        ssr_mode=False,
        app_kwargs={"middleware": [web_guard.middleware(limits.most_mb)]},
    )
    if wait:  # it was stopped
        shutil.rmtree(root, ignore_errors=True)
    return blocks, address
