"""Codec bitstream parsing for packet properties that demuxers do not report."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av.packet

_START_CODE = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
_SLICE, _IDR_SLICE = 1, 5


def is_hidden(codec: str, packet: "av.packet.Packet[Any]") -> bool:
    """Return whether a packet is never displayed: VP8 sends some reference pictures in packets of their own."""
    return codec == "vp8" and not memoryview(packet)[0] >> 4 & 1


def is_clean_entry(codec: str, header: bytes, packet: "av.packet.Packet[Any]") -> bool:
    """Return whether a key frame decodes completely on its own.

    H.264 also flags recovery points, after which pictures become complete gradually, as key frames. The type of the
    first slice tells them apart.

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
