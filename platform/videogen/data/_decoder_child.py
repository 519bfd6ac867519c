"""The child of `videogen.data.isolated`: reads requests on stdin, answers on what was its stdout.

    python -m videogen.data._decoder_child

A message is a JSON header and raw bytes, preceded by the length of each. It is not a pickle: were a hostile video to
take the child over, its answers could still do nothing to the parent.
"""

import dataclasses
import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

from videogen.data.video import VideoError, probe, read_frames

LENGTHS = struct.Struct("<QQ")


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return a message as it goes through the pipe."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the parent closes its end."""
    while lengths := requests.read(LENGTHS.size):
        header_bytes, body_bytes = LENGTHS.unpack(lengths)
        request = json.loads(requests.read(header_bytes))
        source = requests.read(body_bytes) if request["source"] is None else request["source"]
        # The default action of SIGALRM ends the process inside any native loop, so that a child whose parent was
        # killed does not decode for ever.
        signal.setitimer(signal.ITIMER_REAL, request["limit_s"])
        try:
            answer = _answer(request, source)
        except VideoError as error:
            answer = pack({"error": str(error)})
        except Exception as error:  # noqa: BLE001 - whatever a strange file provokes is that file's error
            answer = pack({"error": f"{type(error).__name__}: {error}"})
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(answer)
        answers.flush()


def _answer(request: dict[str, Any], source: str | bytes) -> bytes:
    if isinstance(source, str) and request["indices"] is None:
        return pack(dataclasses.asdict(probe(source)))
    frames = read_frames(source, request["indices"], request["size"])
    return pack({"shape": frames.shape}, frames.tobytes())


def main() -> None:
    """Serve on the process's own pipes; native libraries that print do so elsewhere."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
