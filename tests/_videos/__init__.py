"""Unusual videos, generated on demand: one function per kind, each readable or not for a known reason.

    make("h264_b_frames", path, seed=0)     # writes the file
    KINDS["h264_b_frames"].good             # whether the platform must read it, and .why
    number_in(frame)                        # which frame a decoded picture is

Every picture carries its number as eight black or white bands, so that tests name the exact frame whatever the codec,
colour range or size did to it. `seed` changes the rest of the picture.
"""

from tests._videos import damaged, whole
from tests._videos.making import FPS, KINDS, VFR_TICKS, make, number_in, picture

__all__ = ["FPS", "KINDS", "VFR_TICKS", "damaged", "make", "number_in", "picture", "whole"]
