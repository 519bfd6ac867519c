"""Clips of square frames out of videos, and finished frames as mp4."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from tests._videos import KINDS, make
from videogen.data.synthetic import Attributes, render_clip
from videogen.data.video import VideoError, probe, read_clip, read_frames, resize_frames, write_mp4

FRAMES = render_clip(Attributes("red", "square", "left"), 5)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(write_mp4(FRAMES, 16))
    return path


def pyav_frames(path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("indices", [range(15), range(0, 15, 2), [14, 0, 7, 7, 3]], ids=["all", "strided", "any order"])
def test_frames_are_those_of_another_decoder(clip, indices):
    expected = pyav_frames(clip)[list(indices)].astype(int)
    frames = read_frames(str(clip), indices, 64)
    # Colour conversion may round differently by a level or two; a neighbouring frame differs by far more.
    assert np.abs(frames.astype(int) - expected).max() <= 3


def test_camera_frames_are_those_of_another_decoder(camera_clip):
    indices = [0, 2, 57, 58, 119]
    native = pyav_frames(camera_clip)[indices]
    # QCIF: its pixels are a little wider than high.
    expected = resize_frames(native, 64, sample_aspect_ratio=128 / 117).astype(int)
    frames = read_frames(str(camera_clip), indices, 64).astype(int)
    assert frames.shape == (5, 64, 64, 3)
    assert np.abs(frames - expected).mean() < 1.5
    assert np.abs(frames - expected).max() <= 8


def test_bytes_and_uris_give_the_same(clip, s3):
    from videogen import storage

    storage.write_bytes(f"{s3}/clip.mp4", clip.read_bytes())
    local = read_frames(str(clip), range(15), 64)
    assert np.array_equal(local, read_frames(clip.read_bytes(), range(15), 64))
    assert np.array_equal(local, read_frames(f"file://{clip}", range(15), 64))
    assert np.array_equal(local, read_frames(f"{s3}/clip.mp4", range(15), 64))
    info = probe(f"{s3}/clip.mp4")
    assert info == probe(str(clip)) == probe(f"file://{clip}")
    assert (info.num_frames, info.fps, info.width, info.height) == (15, 16.0, 64, 64)


def test_the_crop_is_central_and_resizing_is_antialiased():
    wide = np.zeros((1, 8, 16, 3), np.uint8)
    wide[:, :, 4:12] = 200  # the central square, and nothing else
    assert np.array_equal(resize_frames(wide, 8), np.full((1, 8, 8, 3), 200, np.uint8))
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    assert np.abs(resize_frames(stripes, 16)[:, 2:-2, 2:-2].astype(int) - 127).max() < 8


def test_mp4_is_what_browsers_play(clip):
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 16
    error = pyav_frames(clip).astype(float) - FRAMES
    assert 10 * np.log10(255**2 / (error**2).mean()) > 30


def test_mp4_bytes_are_reproducible():
    assert write_mp4(FRAMES, 16) == write_mp4(FRAMES, 16)


@pytest.mark.parametrize("frames", [FRAMES[:, :63], FRAMES[:0], FRAMES.astype(np.float32), FRAMES[0]])
def test_frames_that_no_mp4_can_hold_are_refused(frames):
    with pytest.raises(ValueError, match="frames"):
        write_mp4(frames, 16)


def test_a_missing_video_and_a_missing_frame_raise_video_error(clip, tmp_path):
    with pytest.raises(VideoError, match="No such file"):
        probe(str(tmp_path / "missing.mp4"))
    with pytest.raises(VideoError):
        read_frames(str(tmp_path / "missing.mp4"), [0], 64)
    with pytest.raises(VideoError, match="frame 15 was requested from a video of 15"):
        read_frames(str(clip), [0, 15], 64)


@pytest.mark.parametrize(("name", "decoder"), [("h264", "decord"), ("av1", "pyav"), ("rotated_90", "pyav")])
def test_clips_say_what_decoded_them(name, decoder, tmp_path):
    path = tmp_path / f"video{KINDS[name].suffix}"
    make(name, path)
    clip = read_clip(str(path), [5, 2], 64)
    assert (clip.decoder, clip.frames.shape) == (decoder, (2, 64, 64, 3))
    assert read_clip(path.read_bytes(), [5, 2], 64, "pyav").decoder == "pyav"


def test_turned_videos_are_turned_back(tmp_path):
    make("rotated_270", tmp_path / "video.mp4")
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 96)
    upright = tmp_path / "upright.mp4"
    make("h264", upright)
    turned = read_frames(str(tmp_path / "video.mp4"), range(24), 64).astype(int)
    assert np.abs(turned - read_frames(str(upright), range(24), 64)).mean() < 3


@pytest.mark.parametrize(
    ("name", "size", "columns"),
    [
        # 96 x 64 pixels shown as 192 x 64: the middle third is square, and twice as wide as it is stored.
        ("anamorphic", (64, 64), slice(32, 64)),
        ("anamorphic", (64, 192), slice(0, 96)),
        # Shown as 48 x 64: nothing is cut from the sides of what is 24 wide and 32 high.
        ("anamorphic_turned", (32, 24), slice(0, 96)),
    ],
)
def test_pixels_that_are_not_square_become_square(name, size, columns, tmp_path):
    make(name, tmp_path / "stretched.mp4")
    make("h264", tmp_path / "square.mp4")
    stored = read_frames(str(tmp_path / "square.mp4"), [0, 23], (64, 96))[:, :, columns]
    expected = [Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC) for frame in stored]
    shown = read_frames(str(tmp_path / "stretched.mp4"), [0, 23], size)
    assert np.abs(shown.astype(int) - np.stack([np.asarray(image) for image in expected])).mean() < 3


def test_no_frames_asked_for_are_no_frames(clip):
    assert read_frames(str(clip), [], 64).shape == (0, 64, 64, 3)


def test_native_size_is_left_alone(clip):
    frames = read_frames(str(clip), range(15), 64)
    assert np.abs(frames.astype(int) - FRAMES).mean() < 3
