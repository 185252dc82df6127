"""A page for a model: drop a video, listen to takes with audio, download them.

python -m foley_jax.serve --model=runs/ldm
python -m foley_jax.serve --model=official_mmaudio/ --most_s=30 --port=8080

The same over HTTP:

from gradio_client import Client, handle_file
client = Client("http://127.0.0.1:7860")
client.predict(handle_file("silent.mp4"), "", "", 0, 25, 4.5, 1, -60, 0,
               api_name="/audio_for_video")
"""

import argparse
from collections.abc import Sequence
import sys

from foley_jax.inference import load as loading
from foley_jax.inference import takes
from foley_jax.runtime import compile_cache, limits, reasons

MISSING = "the page needs gradio: pip install foley_jax[web]"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m foley_jax.serve",
        description="Serves a page on this machine: drop or record a video, choose seed, steps, "
        "guidance, text where the model takes it, and how many takes; play and download them.",
        epilog="Requests are worked on one after the other, others wait in a queue. Uploads and "
        "results are removed after --kept_s. Only this machine reaches the page unless --host "
        "says otherwise; it has no accounts, so keep it behind something that has.\n\n"
        f"{compile_cache.HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = takes.Limits()
    p.add_argument("--model", required=True, help="as of python -m foley_jax.sample")
    for name in loading.NETWORKS:
        p.add_argument(f"--{name}", help="as of python -m foley_jax.sample")
    p.add_argument("--host", default="127.0.0.1", help="to bind to (default: this machine only)")
    p.add_argument("--port", type=int, default=7860, help="0: any that is free (default: 7860)")
    p.add_argument(
        "--waiting", type=limits.count_argument, default=20, help="requests in the queue"
    )
    number, count = limits.number_argument, limits.count_argument
    for name, kind, about in (
        ("most_mb", number, "megabytes of an upload"),
        ("most_s", number, "seconds of a video"),
        ("most_takes", count, "takes of one request"),
        ("most_steps", count, "solver steps"),
        ("request_s", number, "seconds that a request may take"),
        ("kept_s", number, "seconds after which its files are removed"),
    ):
        default = getattr(usual, name)
        p.add_argument(
            f"--{name}", type=kind, default=default, help=f"{about} (default: {default})"
        )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        from foley_jax.inference import web
    except ImportError as error:
        if not (error.name or "").startswith("gradio"):
            raise
        print(f"error: {MISSING}", file=sys.stderr)
        return 1
    compile_cache.turn_on()
    names = ("most_mb", "most_s", "most_takes", "most_steps", "request_s", "kept_s")
    asked = takes.Limits(**{name: getattr(args, name) for name in names})
    networks = {name: getattr(args, name) for name in loading.NETWORKS}
    print(f"loading {args.model}; the page will be at http://{args.host}:{args.port}", flush=True)
    try:
        web.serve(
            args.model, asked, host=args.host, port=args.port, waiting=args.waiting, **networks
        )
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {reasons.of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
