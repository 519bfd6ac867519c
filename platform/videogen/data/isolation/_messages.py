"""How a decoder process and its parent talk: a JSON header and raw bytes, preceded by the length of each.

Not a pickle: were a hostile video to take the child over, its answers could still do nothing to the parent.
"""

import json
import struct
from typing import Any

LENGTHS = struct.Struct("<QQ")


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return a message as it goes through the pipe."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body
