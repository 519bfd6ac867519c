"""Reading and writing video: parity with another decoder, and damaged files in every way."""

import io
import os
import signal
import time

import av
import numpy as np
import pytest
from PIL import Image

from videogen.data import isolated, video
from videogen.data.isolated import DecoderDiedError, IsolatedDecoder, shared_decoder
from videogen.data.video import VideoError, VideoInfo, probe, read_frames, resize_frames, write_mp4
from videogen.data.world import Attributes, render_clip

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
    expected = resize_frames(native, 64).astype(int)
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
    assert probe(f"{s3}/clip.mp4") == probe(str(clip)) == VideoInfo(15, 16.0, 64, 64)


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


def damaged(name: str, good: bytes) -> bytes:
    middle = len(good) // 2
    noise = np.random.default_rng(0).bytes(middle)
    return {
        "empty": b"",
        "text": b"this is no video\n" * 100,
        "truncated": good[:middle],
        "overwritten": good[: middle - 500] + noise[:-500] + good[middle + middle - 1000 :],
        "picture": _png(),
    }[name]


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["empty", "text", "truncated", "overwritten", "picture"])
def test_damaged_videos_raise_video_error(name, clip, tmp_path):
    path = tmp_path / f"{name}.mp4"
    path.write_bytes(damaged(name, clip.read_bytes()))
    with IsolatedDecoder(limit_s=20) as decoder:
        with pytest.raises(VideoError) as caught:
            decoder.read_frames(str(path), range(15), 64)
        assert "github" not in str(caught.value)
        # The same decoder goes on with the next video.
        assert decoder.read_frames(str(clip), [0], 64).shape == (1, 64, 64, 3)


def test_a_missing_video_and_a_missing_frame_raise_video_error(clip, tmp_path):
    with pytest.raises(VideoError):
        probe(str(tmp_path / "missing.mp4"))
    with pytest.raises(VideoError):
        read_frames(str(tmp_path / "missing.mp4"), [0], 64)
    with pytest.raises(VideoError, match="frame 15 was asked of a video of 15"):
        read_frames(str(clip), [0, 15], 64)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="no video stream"):
        probe(str(path))


def test_a_decoder_that_hangs_is_stopped_and_replaced(clip, tmp_path):
    pipe = tmp_path / "hangs.mp4"
    os.mkfifo(pipe)  # opening it for reading waits for a writer that never comes
    with IsolatedDecoder(limit_s=0.5) as decoder:
        started = time.monotonic()
        with pytest.raises(DecoderDiedError, match="stopped after"):
            decoder.read_frames(str(pipe), [0], 64)
        assert time.monotonic() - started < 5
    with IsolatedDecoder() as decoder:
        assert decoder.read_frames(str(clip), [0], 64).shape == (1, 64, 64, 3)


def test_a_decoder_that_crashes_is_replaced(clip):
    with IsolatedDecoder() as decoder:
        first = decoder.read_frames(str(clip), range(15), 64)
        os.kill(decoder._child.process.pid, signal.SIGSEGV)
        with pytest.raises(DecoderDiedError, match="crashed"):
            decoder.read_frames(str(clip), range(15), 64)
        assert np.array_equal(decoder.read_frames(str(clip), range(15), 64), first)


def test_a_child_outlives_neither_its_limit_nor_its_parent(clip, tmp_path):
    pipe = tmp_path / "hangs.mp4"
    os.mkfifo(pipe)
    decoder = IsolatedDecoder()
    assert decoder.probe(str(clip)).num_frames == 15
    child = decoder._child.process
    request = {"source": str(pipe), "indices": [0], "size": 64, "limit_s": 0.3}
    child.stdin.write(isolated.pack(request))
    child.stdin.flush()
    assert child.wait(timeout=10) == -signal.SIGALRM
    decoder.close()


def test_children_are_recycled(clip, monkeypatch):
    monkeypatch.setattr(isolated, "_REQUESTS_PER_CHILD", 2)
    with IsolatedDecoder() as decoder:
        children = set()
        for _ in range(5):
            decoder.probe(str(clip))
            children.add(decoder._child.process.pid)
    assert len(children) == 3


def test_isolated_and_direct_frames_are_equal(clip, camera_clip):
    for path in (str(clip), str(camera_clip)):
        assert np.array_equal(shared_decoder().read_frames(path, range(15), 48), video.read_frames(path, range(15), 48))
    assert np.array_equal(shared_decoder().read_frames(clip.read_bytes(), [3], 64), read_frames(str(clip), [3], 64))
