"""A clip's perceptual hash: 64 bits that copies of a clip share, whatever their size, codec and quality."""

import numpy as np

from videogen.data.curation.clip_frames import ClipFrames

_MAX_FRAMES = 32
_SIDE = 32
_MIN_CONTRAST = 2.0
"""Standard deviation of luma of a picture that has enough in it to be told from others."""


def perceptual_hash(clip: ClipFrames) -> int | None:
    """Return the hash of a clip's average picture, or None where that has no content (e.g. black).

    The picture is averaged over the clip, so that a copy at another frame rate hashes alike. Its 8 x 8 lowest
    frequencies (DCT) but the constant one, and the one of the highest frequency after them, are compared with
    their median (pHash). Hashes of copies differ in few of the 64 bits, those of unrelated clips in about 32.
    """
    import cv2

    luma = clip.luma[clip.spread(_MAX_FRAMES)].mean(axis=0, dtype=np.float32)
    if luma.std() < _MIN_CONTRAST:
        return None
    small = cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    # 65 coefficients without the constant one, which says brightness only.
    spectrum = cv2.dct(small)
    values = np.append(spectrum[:8, :8].ravel()[1:], spectrum[8, 0])
    bits = values > np.median(values)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
