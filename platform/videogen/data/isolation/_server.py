"""Decoder server, the child process: reads requests from stdin and answers on stdout.

python -m videogen.data.isolation._server LIFE_LINE MAX_MEMORY_BYTES MAX_FILE_BYTES
"""

import dataclasses
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from videogen.data.isolation._process import LENGTHS, end_with_parent, limit_process, pack
from videogen.data.video import VideoError, probe, read_clip
from videogen.errors import UserError

Answer = tuple[dict[str, Any], bytes]

_MEMORY_WORDS = (
    "Cannot allocate memory",
    "bad_alloc",
    "MemoryError",
    "Unable to allocate",
    "Resource temporarily unavailable",  # no memory for the stack of a thread
)


class Server:
    """Answers requests in sequence."""

    def __init__(self, max_file_bytes: int) -> None:
        self._max_file_bytes = max_file_bytes
        self._operations: dict[str, Callable[[dict[str, Any], bytes], Answer]] = {
            "probe": self._probe,
            "frames": self._frames,
            "analyse": self._analyse,
        }

    def serve(self, requests: BinaryIO, answers: BinaryIO) -> None:
        """Answer requests until the parent closes its end."""
        while lengths := requests.read(LENGTHS.size):
            header_bytes, body_bytes = LENGTHS.unpack(lengths)
            request = json.loads(requests.read(header_bytes))
            body = requests.read(body_bytes)
            # The default action of SIGALRM ends the process even inside native code, in case the parent does not.
            signal.setitimer(signal.ITIMER_REAL, request["limit_s"])
            answer = self._answer(request, body)
            signal.setitimer(signal.ITIMER_REAL, 0)
            # Output of native libraries must arrive before the answer that it belongs to.
            sys.stderr.flush()
            answers.write(answer)
            answers.flush()

    def _answer(self, request: dict[str, Any], body: bytes) -> bytes:
        try:
            return pack(*self._operations[request["op"]](request["arguments"], body))
        except MemoryError:
            return pack({"error": "out of memory", "kind": "memory"})
        except UserError as error:
            return pack({"error": str(error), "kind": "user"})
        except Exception as error:  # noqa: BLE001 - any error that a file causes is reported as an error of that file
            text = str(error) if isinstance(error, VideoError) else f"{type(error).__name__}: {error}"
            return pack({"error": text, "kind": "memory" if any(word in text for word in _MEMORY_WORDS) else "video"})

    def _probe(self, arguments: dict[str, Any], _: bytes) -> Answer:
        return dataclasses.asdict(probe(arguments["source"], self._max_file_bytes)), b""

    def _frames(self, arguments: dict[str, Any], body: bytes) -> Answer:
        source = body if arguments["source"] is None else arguments["source"]
        clip = read_clip(source, arguments["indices"], arguments["size"], arguments["decoder"], self._max_file_bytes)
        return {"shape": clip.frames.shape, "decoder": clip.decoder}, clip.frames.tobytes()

    def _analyse(self, arguments: dict[str, Any], _: bytes) -> Answer:
        from videogen.data.curation import analyse_request

        return analyse_request(arguments)


def main() -> None:
    """Serve on the process's own pipes; output of native libraries is redirected to stderr."""
    life_line, max_memory_bytes, max_file_bytes = map(int, sys.argv[1:])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(life_line)
    limit_process(max_memory_bytes, max_file_bytes)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("videogen").setLevel(logging.INFO)
    _enable_ffmpeg_messages()
    Server(max_file_bytes).serve(sys.stdin.buffer, answers)


def _enable_ffmpeg_messages() -> None:
    """Let PyAV's FFmpeg print errors to stderr, as decord's does; by default it does not."""
    import av.logging

    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)


if __name__ == "__main__":
    main()
