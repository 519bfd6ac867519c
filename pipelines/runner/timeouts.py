"""Time limit per video, from its file size: a small file that blocks a decoder for hours is a poison input."""

_BYTES_PER_LIMIT = 60e6


def video_limit_s(limit_s: float, num_bytes: int | None) -> float:
    """Return the time limit of a video in seconds: `limit_s`, plus `limit_s` per 60 MB.

    With 60 s, an hour of 1080p video may take half an hour.
    """
    return limit_s * (1 + (num_bytes or 0) / _BYTES_PER_LIMIT)
