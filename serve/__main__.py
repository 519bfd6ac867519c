"""Serve a trained model as a text-to-video service that speaks the OpenAI Videos API.

    python -m serve --model runs/demo/model

Then open the printed address for the playground, or use any OpenAI client with it as `base_url`. Only this machine
can reach the service unless --host says otherwise; there is no authentication.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines import cluster
from videogen import cli
from videogen.errors import UserError

if TYPE_CHECKING:
    from serve.preflight import Plan

_EXAMPLE = """
Serving {model} at {url}   (playground: open it in a browser)

  curl {url}/v1/videos -F prompt='a red circle moving left' -F seed=1
  curl {url}/v1/videos/VIDEO_ID
  curl {url}/v1/videos/VIDEO_ID/content -o video.mp4

  client = openai.OpenAI(base_url="{url}/v1", api_key="unused")

Jobs and videos are kept in {storage}. Ctrl-C stops.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m serve"
    parser.add_argument("--model", required=True, metavar="URI", help="model folder, local or s3://")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--storage", default="runs/serve", metavar="DIR", help="job database and videos (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    _catch_signals(_interrupt)
    try:
        plan = _plan(options.model, host=options.host, port=options.port, storage=options.storage)
        _serve(plan)
        _say(_EXAMPLE.format(model=options.model, url=plan.url, storage=options.storage))
        threading.Event().wait()
    except KeyboardInterrupt:
        _say("\nStopping; jobs that have not finished go on at the next start.")
    finally:
        _shut_down()


def _plan(model: str, **options: Any) -> "Plan":
    from serve.config import ServeConfig
    from serve.preflight import prepare

    try:
        config = ServeConfig(**options)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--{first['loc'][0]} {first['input']!r} is not usable: {first['msg']}.") from error
    return prepare(model, config)


def _serve(plan: "Plan") -> None:
    # Before Ray is imported by anything else: it reads its settings then.
    cluster.connect()
    from serve import launch

    # Ray has put handlers of its own in place, which print a C++ stack.
    _catch_signals(_interrupt)
    launch.start(plan)


def _catch_signals(handler: "signal._HANDLER") -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _shut_down() -> None:
    """Stop the service and the Ray that was started for it; a second Ctrl-C does not leave half of it running."""
    _catch_signals(signal.SIG_IGN)
    if "ray" not in sys.modules:
        return
    import ray

    from serve import launch

    if ray.is_initialized():
        launch.stop(cluster_goes_on=bool(os.environ.get("RAY_ADDRESS")))
        ray.shutdown()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(cli.run_job(main))
