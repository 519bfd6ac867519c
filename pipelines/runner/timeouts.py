"""How long one video may take, told from its size: a small file that keeps a decoder for hours is poison."""

_BYTES_PER_LIMIT = 60e6


def video_limit_s(limit_s: float, num_bytes: int | None) -> float:
    """Return the seconds that a video may take: `limit_s`, and once more for every 60 MB of it.

    At 60 s that is half an hour for an hour of 1080p.
    """
    return limit_s * (1 + (num_bytes or 0) / _BYTES_PER_LIMIT)
