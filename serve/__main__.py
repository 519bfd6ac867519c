"""Serve a trained model as a text-to-video service with the OpenAI Videos API.

    python -m serve --model runs/demo/model

Then open the printed address for the playground, or use any OpenAI client with it as `base_url`. Only this machine
can reach the service unless --host says otherwise; there is no authentication.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from pipelines import cluster
from videogen import cli

if TYPE_CHECKING:
    from serve.launch import Service
    from serve.preflight import Plan

_EXAMPLE = """
Serving {model} at {url}   (playground: open it in a browser)

  curl {url}/v1/videos -F prompt='a red circle moving left' -F seed=1
  curl {url}/v1/videos/VIDEO_ID
  curl {url}/v1/videos/VIDEO_ID/content -o video.mp4

  client = openai.OpenAI(base_url="{url}/v1", api_key="unused")

Jobs and videos are kept in {storage}. Ctrl-C stops.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the service's options."""
    parser = cli.parser(__doc__)
    if parser.prog == "__main__.py":
        parser.prog = "python -m serve"
    parser.add_argument("--model", required=True, metavar="URI", help="model folder, local or s3://")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--storage", default="runs/serve", metavar="DIR", help="job database and videos (default: %(default)s)"
    )
    cli.add_set_option(
        parser, help_text="setting of serve/config.py, e.g. --set default_stage.num_gpus=0.1 base.max_replicas=4"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    options = build_parser().parse_args(argv)
    service: Service | None = None
    _catch_signals(_interrupt)
    try:
        plan = _plan(options.model, options.overrides, host=options.host, port=options.port, storage=options.storage)
        service = _connect(plan)
        service.start(plan)
        _print(_EXAMPLE.format(model=options.model, url=plan.url, storage=plan.config.storage))
        threading.Event().wait()
    except KeyboardInterrupt:
        _print("\nStopping; unfinished jobs continue at the next start.")
    finally:
        _shut_down(service)


def _plan(model: str, overrides: Sequence[str], **options: Any) -> "Plan":
    from serve.preflight import prepare
    from serve.settings import build_config

    return prepare(model, build_config(overrides, **options))


def _connect(plan: "Plan") -> "Service":
    """Connect to Ray or start it, and return the service to run on it."""
    # Must precede the first import of Ray, which reads its settings then.
    cluster.connect()
    from serve import launch

    # Replaces Ray's own handlers, which print a C++ stack.
    _catch_signals(_interrupt)
    shared = bool(os.environ.get("RAY_ADDRESS"))
    if shared and (missing := launch.missing_resources(plan)):
        _print(f"The service needs {missing}: waiting for the cluster to grow. Ctrl-C gives up.")
    return launch.Service(shared=shared)


def _catch_signals(handler: "signal._HANDLER") -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _shut_down(service: "Service | None") -> None:
    """Stop the service, and Ray if it was started for it; further Ctrl-Cs are ignored meanwhile."""
    _catch_signals(signal.SIG_IGN)
    if "ray" not in sys.modules:
        return
    import ray

    if ray.is_initialized():
        if service:
            service.stop()
        ray.shutdown()


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(cli.run_job(main))
