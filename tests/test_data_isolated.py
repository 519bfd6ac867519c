"""The decoder process: whatever a file does to it, its parent goes on, and nothing is left behind."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import videogen
from tests._videos import KINDS, make
from videogen import storage
from videogen.data import video
from videogen.data.isolation import DecoderDiedError, IsolatedDecoder, shared_decoder
from videogen.data.synthetic import Attributes, render_clip
from videogen.data.video import VideoError, local_file, read_frames, write_mp4
from videogen.errors import StorageError, UserError

pytestmark = pytest.mark.process

FRAMES = render_clip(Attributes("red", "square", "left"), 5)

SLOWLY_BAD = ("fifo", "endless", "memory_bomb")
QUICKLY_BAD = [name for name, kind in KINDS.items() if not kind.good and name not in SLOWLY_BAD]

ASK = """
import sys
from videogen.data.isolation import IsolatedDecoder
decoder = IsolatedDecoder()
decoder.probe(sys.argv[1])
print(decoder.child_pid, flush=True)
decoder.read_frames(sys.argv[2], [0, *range(500, 20000, 500)], 64, "pyav")
"""


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(write_mp4(FRAMES, 16))
    return path


@pytest.fixture
def endless(tmp_path):
    path = tmp_path / "endless.gif"
    make("endless", path)
    return path


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds: float = 4.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


# --- what a file can do ------------------------------------------------------------------------------------------


def test_bad_files_are_video_errors_and_the_next_is_read(clip, tmp_path):
    with IsolatedDecoder(limit_s=20) as decoder:
        decoder.probe(str(clip))
        child = decoder.child_pid
        for name in QUICKLY_BAD:
            path = tmp_path / f"{name}{KINDS[name].suffix}"
            make(name, path)
            with pytest.raises(VideoError) as caught:
                decoder.read_frames(str(path), range(15), 64)
            assert not isinstance(caught.value, DecoderDiedError)
            assert "github" not in str(caught.value)
            assert decoder.read_frames(str(clip), [0], 64).shape == (1, 64, 64, 3)
        assert decoder.child_pid == child


def test_a_decoder_that_waits_for_ever_is_stopped_and_replaced(clip, tmp_path):
    make("fifo", tmp_path / "pipe.mp4")
    with IsolatedDecoder(limit_s=0.5) as decoder:
        started = time.monotonic()
        with pytest.raises(DecoderDiedError, match=r"stopped after 1 s"):
            decoder.read_frames(str(tmp_path / "pipe.mp4"), [0], 64)
        assert time.monotonic() - started < 3
    with IsolatedDecoder() as decoder:
        assert decoder.read_frames(str(clip), [0], 64).shape == (1, 64, 64, 3)


def test_a_decoder_that_never_finishes_is_stopped(endless):
    with IsolatedDecoder() as decoder:
        arguments = {"source": str(endless), "indices": [19_000], "size": 64, "decoder": "auto"}
        with pytest.raises(DecoderDiedError, match=r"stopped after 1\.5 s"):
            decoder.call("frames", arguments, 1.5)
        assert decoder.child_pid is None


def test_memory_is_limited(clip, tmp_path):
    make("memory_bomb", tmp_path / "bomb.gif")
    with IsolatedDecoder(max_memory_bytes=500 * 2**20) as decoder:
        with pytest.raises(DecoderDiedError, match="500 MiB of memory"):
            decoder.read_frames(str(tmp_path / "bomb.gif"), [0, 1, 2, 3], 64)
        assert decoder.read_frames(str(clip), [0], 64).shape == (1, 64, 64, 3)


def test_the_kernel_limits_memory_and_files_too(tmp_path):
    """The parent looks at the child's memory every 50 ms, which a fast allocation outruns."""
    script = """
import sys
from videogen.data.isolation._process import limit_process
limit_process(300 * 2**20, 1000)
try:
    bytearray(500 * 2**20)
except MemoryError:
    print("no memory", flush=True)
try:
    with open(sys.argv[1], "wb", buffering=0) as file:
        print(file.write(bytes(2000)))
        file.write(bytes(2000))
except OSError as error:
    print(error.strerror)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    assert printed.splitlines() == ["no memory", "1000", "File too large"]


def test_a_crash_is_an_error_with_what_was_printed(clip):
    with IsolatedDecoder() as decoder:
        first = decoder.read_frames(str(clip), range(15), 64)
        os.kill(decoder.child_pid, signal.SIGSEGV)
        with pytest.raises(DecoderDiedError, match="crashed"):
            decoder.read_frames(str(clip), range(15), 64)
        assert np.array_equal(decoder.read_frames(str(clip), range(15), 64), first)


@pytest.mark.parametrize(("death", "reads_on"), [(signal.SIGSEGV, "pyav"), (signal.SIGKILL, "decord")])
def test_pyav_is_asked_when_decord_crashes_not_when_it_is_killed(death, reads_on, tmp_path):
    path = tmp_path / "video.mp4"
    make("h264", path)
    indices = [0, 23] * 4000

    def end_decord() -> None:
        wait_until(lambda: decoder._child is not None and "decord reads" in decoder._child._printed.decode())
        os.kill(decoder.child_pid, death)

    with IsolatedDecoder() as decoder:
        killer = threading.Thread(target=end_decord)
        killer.start()
        clip = decoder.read_clip(str(path), indices, 48)
        killer.join()
        assert clip.decoder == reads_on
        assert np.array_equal(clip.frames[-2:], read_frames(str(path), [0, 23], 48))


def test_native_messages_are_kept_with_the_error(tmp_path):
    make("overwritten", tmp_path / "video.mp4")
    with IsolatedDecoder() as decoder:
        with pytest.raises(VideoError) as caught:
            decoder.read_frames(str(tmp_path / "video.mp4"), range(24), 64)
        assert "h264" in caught.value.log_tail
        assert len(caught.value.log_tail) <= 2048
        # The next video's error does not inherit them.
        with pytest.raises(VideoError) as caught:
            decoder.probe(str(tmp_path / "missing.mp4"))
        assert caught.value.log_tail == ""


@pytest.mark.parametrize("seed", range(3))
def test_frames_built_on_damage_are_refused_and_the_others_given(seed, tmp_path):
    make("one_damaged", tmp_path / "video.mp4", seed)
    with IsolatedDecoder() as decoder:
        for broken in (10, 11, 15):  # up to the next key frame
            with pytest.raises(VideoError, match=f"frame {broken} cannot be decoded"):
                decoder.read_frames(str(tmp_path / "video.mp4"), [broken], 64)
        assert decoder.read_frames(str(tmp_path / "video.mp4"), [0, 9, 16, 23], 64).shape == (4, 64, 64, 3)


# --- what is left behind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in native code"])
def test_a_child_ends_with_its_parent(busy, clip, endless):
    script = ASK if busy else ASK.replace("decoder.read_frames", "input(); decoder.read_frames")
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(clip), str(endless)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())
    time.sleep(0.5)  # let it begin to decode
    assert is_running(child)
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    assert wait_until(lambda: not is_running(child), seconds=2)


def test_a_childs_own_alarm_ends_it(clip, tmp_path):
    make("fifo", tmp_path / "pipe.mp4")
    with IsolatedDecoder() as decoder:
        assert decoder.probe(str(clip)).num_frames == 15
        child = decoder._child.process
        request = json.dumps({"op": "probe", "arguments": {"source": str(tmp_path / "pipe.mp4")}, "limit_s": 0.3})
        child.stdin.write(struct.pack("<QQ", len(request), 0) + request.encode())
        child.stdin.flush()
        assert child.wait(timeout=10) == -signal.SIGALRM


@pytest.mark.parametrize("victim", ["child", "parent"])
def test_fetched_files_vanish_with_whoever_is_killed(victim, clip, endless, s3, tmp_path, monkeypatch):
    storage.upload(endless, f"{s3}/endless.gif")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", ASK, str(clip), f"{s3}/endless.gif"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    child = int(parent.stdout.readline())
    copies = f"{temporary}/"
    assert wait_until(lambda: any(copies in link and "deleted" in link for link in open_files(child)))
    os.kill(child if victim == "child" else parent.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_running(child), seconds=2)
    assert list(temporary.iterdir()) == []
    # Of a child that was killed, the parent makes another.
    parent.kill()
    parent.wait()
    parent.stdout.close()


def open_files(pid: int) -> list[str]:
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except OSError:
            continue
    return links


def test_children_are_recycled_and_ended(clip):
    with IsolatedDecoder(requests_per_child=2) as decoder:
        children = set()
        for _ in range(5):
            decoder.probe(str(clip))
            children.add(decoder.child_pid)
    assert len(children) == 3
    assert not any(is_running(child) for child in children)


def test_nothing_stays_open_in_the_parent(clip):
    shared_decoder().probe(str(clip))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with IsolatedDecoder() as decoder:
            decoder.probe(str(clip))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- what is asked -----------------------------------------------------------------------------------------------


def test_isolated_and_direct_frames_are_equal(clip, camera_clip):
    for path in (str(clip), str(camera_clip)):
        assert np.array_equal(shared_decoder().read_frames(path, range(15), 48), read_frames(path, range(15), 48))
    assert np.array_equal(shared_decoder().read_frames(clip.read_bytes(), [3], 64), read_frames(str(clip), [3], 64))
    assert shared_decoder().probe(str(camera_clip)) == video.probe(str(camera_clip))


def test_large_contents_are_sent_whole(clip):
    padded = clip.read_bytes() + b"\0\0\0\x08free" + b"\0" * 20_000_000
    assert np.array_equal(shared_decoder().read_frames(padded, [3], 64), read_frames(str(clip), [3], 64))


def test_times_of_frames_survive_the_pipe(tmp_path):
    make("vfr_mkv", tmp_path / "video.mkv")
    info = shared_decoder().probe(str(tmp_path / "video.mkv"))
    assert info == video.probe(str(tmp_path / "video.mkv"))
    assert len(info.timestamps) == 24


def test_the_decoder_may_be_chosen(clip):
    assert shared_decoder().read_clip(str(clip), [1], 64).decoder == "decord"
    assert shared_decoder().read_clip(str(clip), [1], 64, "pyav").decoder == "pyav"
    with pytest.raises(UserError, match="Decoder 'ffmpeg' does not exist"):
        shared_decoder().read_clip(str(clip), [1], 64, "ffmpeg")


def test_a_storage_that_fails_is_no_videos_fault(monkeypatch):
    def fail(uri):
        raise StorageError("S3 failed at every attempt")

    monkeypatch.setattr(storage, "fsspec_filesystem", fail)
    with pytest.raises(StorageError, match="at every attempt"), local_file("s3://bucket/a.mp4", 1 << 20):
        pass


def test_fetched_files_are_limited_in_size(clip, s3):
    storage.upload(clip, f"{s3}/clip.mp4")
    with IsolatedDecoder(max_file_bytes=1000) as decoder, pytest.raises(VideoError, match="more than the 1000"):
        decoder.read_frames(f"{s3}/clip.mp4", [0], 64)
    with IsolatedDecoder() as decoder:
        assert decoder.read_frames(f"{s3}/clip.mp4", [0], 64).shape == (1, 64, 64, 3)


def test_the_child_imports_the_package_of_its_parent(tmp_path):
    """Also where the package comes with a job's working directory instead of an installation."""
    shipped = tmp_path / "shipped"
    shutil.copytree(Path(videogen.__file__).parent, shipped / "videogen", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import pathlib, sys, videogen\n"
        "from videogen.data.isolation import IsolatedDecoder\n"
        "with IsolatedDecoder() as decoder:\n"
        "    try:\n"
        "        decoder.probe('nowhere.mp4')\n"
        "    except Exception:\n"
        "        pass\n"
        "    environment = pathlib.Path(f'/proc/{decoder.child_pid}/environ').read_bytes().split(b'\\0')\n"
        "print(next(one for one in environment if one.startswith(b'PYTHONPATH=')).decode())\n"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(shipped)}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert printed.strip().split("=", 1)[1].split(os.pathsep)[0] == str(shipped)
