"""Curation: cutting videos into clips, scoring clips, and the policy that keeps or drops them.

Scores of every clip are stored; a policy over them can change without decoding anything again.
"""

from videogen.data.curation._analyse import AnalyseRequest, analyse_request
from videogen.data.curation._pictures import THUMBNAIL_SIDE, decode_jpegs, encode_jpeg, shrink, thumbnail
from videogen.data.curation._policy import Policy
from videogen.data.curation._shots import ShotDetector
from videogen.data.curation._windows import ShotWindows, Window, WindowSpec, clock_of

__all__ = [
    "THUMBNAIL_SIDE",
    "AnalyseRequest",
    "Policy",
    "ShotDetector",
    "ShotWindows",
    "Window",
    "WindowSpec",
    "analyse_request",
    "clock_of",
    "decode_jpegs",
    "encode_jpeg",
    "shrink",
    "thumbnail",
]
