"""The child of `videogen.data.isolated`: reads requests on stdin, answers on what was its stdout.

    python -m videogen.data._decoder_child

A message is a pickle preceded by its length (8 bytes, little endian).
"""

import os
import pickle
import signal
import struct
import sys
from typing import BinaryIO

from videogen.data.video import VideoError, probe, read_frames

_ACTIONS = {"probe": probe, "read_frames": read_frames}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests (action, arguments, limit in seconds) until the parent closes its end."""
    while header := requests.read(8):
        action, arguments, limit_s = pickle.loads(requests.read(*struct.unpack("<Q", header)))
        # The default action of SIGALRM ends the process inside any native loop, so that a child whose parent was
        # killed does not decode for ever.
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            answer = (True, _ACTIONS[action](*arguments))
        except VideoError as error:
            answer = (False, str(error))
        except Exception as error:  # whatever a strange file provokes is that file's error
            answer = (False, f"{type(error).__name__}: {error}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        payload = pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
        answers.write(struct.pack("<Q", len(payload)) + payload)
        answers.flush()


def main() -> None:
    """Serve on the process's own pipes; native libraries that print do so elsewhere."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
