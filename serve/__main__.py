"""Serve a trained model as a text-to-video service that speaks the OpenAI Videos API.

    python -m serve --model runs/demo/model

Then open the printed address for the playground, or use any OpenAI client with it as `base_url`. Only this machine
can reach the service unless --host says otherwise; there is no authentication.
"""

import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from pydantic import ValidationError

from videogen import cli
from videogen.errors import UserError

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
    from serve.config import ServeConfig

    try:
        config = ServeConfig(host=options.host, port=options.port, storage=options.storage)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--{first['loc'][0]} {first['input']!r} is not usable: {first['msg']}.") from error
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    from serve import launch

    try:
        url = launch.start(options.model, config)
        _say(_EXAMPLE.format(model=options.model, url=url, storage=options.storage))
        stopped.wait()
    except KeyboardInterrupt:
        _say("\nStopping; jobs that have not finished go on at the next start.")
    finally:
        _shut_down()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _shut_down() -> None:
    """Stop the service and the Ray that was started for it; a second Ctrl-C does not leave half of it running."""
    import ray

    from serve import launch

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if ray.is_initialized():
        launch.stop()
        ray.shutdown()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(cli.run_job(main))
