"""What some codecs say only inside their packets, and demuxers do not pass on."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av.packet

_START_CODE = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
_SLICE, _IDR_SLICE = 1, 5


def is_hidden(codec: str, packet: "av.packet.Packet") -> bool:
    """Tell whether a packet only serves others: VP8's reference pictures stand in packets of their own."""
    return codec == "vp8" and not memoryview(packet)[0] >> 4 & 1


def is_clean_entry(codec: str, header: bytes, packet: "av.packet.Packet") -> bool:
    """Tell whether a key frame is whole by itself.

    H.264 also calls a picture so from which the following become whole bit by bit (a recovery point); that is seen
    from the kind of its first slice.

    Args:
        codec: canonical name.
        header: the stream's extra data.
        packet: the key frame.
    """
    if codec != "h264":
        return True
    data, has_lengths = bytes(packet), len(header) > 4 and header[0] == 1
    kinds = _h264_units_with_length(header[4] % 4 + 1, data) if has_lengths else _h264_units(data)
    return next((kind for kind in kinds if kind in (_SLICE, _IDR_SLICE)), _SLICE) == _IDR_SLICE


def _h264_units(packet: bytes) -> list[int]:
    return [match[1][0] % 32 for match in _START_CODE.finditer(packet)]


def _h264_units_with_length(length_bytes: int, packet: bytes) -> list[int]:
    kinds, position = [], 0
    while position + length_bytes < len(packet):
        kinds.append(packet[position + length_bytes] % 32)
        position += length_bytes + int.from_bytes(packet[position : position + length_bytes], "big")
    return kinds
