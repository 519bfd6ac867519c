"""Damaged videos, some of them readable in part, and files that are not videos."""

import os
import struct
from pathlib import Path

import av
import numpy as np

from tests._videos.making import GOP, NUM_FRAMES, X264, add_sound, bad_kind, encode, good_kind, pictures


@good_kind("over_reported", "its header names 24 frames, 12 are there", shown=tuple(range(12)))
def _over_reported(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP, muxer={"movflags": "+faststart"})
    data = path.read_bytes()
    with av.open(str(path)) as container:
        offsets = sorted(packet.pos or 0 for packet in container.demux(video=0) if packet.size)
    path.write_bytes(data[: offsets[12]])


@good_kind("cut_off", "it ends within a frame, as a broken download does", shown=tuple(range(11)))
def _cut_off(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP, muxer={"movflags": "+faststart"})
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    path.write_bytes(data[: packets[11][0] + packets[11][1] // 2])


@bad_kind("zero_bytes", "nothing in it")
def _zero_bytes(path: Path, seed: int) -> None:
    path.write_bytes(b"")


@bad_kind("text", "no video at all")
def _text(path: Path, seed: int) -> None:
    path.write_bytes(b"this is no video\n" * (100 + seed))


@bad_kind("random", "noise")
def _random(path: Path, seed: int) -> None:
    path.write_bytes(np.random.default_rng(seed).bytes(20_000))


@bad_kind("picture", "a PNG picture")
def _picture(path: Path, seed: int) -> None:
    encode(path, pictures(1, seed=seed), "png", "rgb24", container_format="image2")


@bad_kind("sound_only", "no video stream")
def _sound_only(path: Path, seed: int) -> None:
    with av.open(str(path), "w") as container:
        add_sound(container, container.add_stream("aac", rate=16000))


@bad_kind("cover_only", "sound with a cover picture")
def _cover_only(path: Path, seed: int) -> None:
    cover = path.with_name(f"{path.name}.png")
    encode(cover, pictures(1, seed=seed), "png", "rgb24", container_format="image2")
    with av.open(str(path), "w", format="mp4") as container, av.open(str(cover)) as image:
        sound = container.add_stream("aac", rate=16000)
        source = image.streams.video[0]
        stream = container.add_stream_from_template(source)
        stream.disposition = av.stream.Disposition.attached_pic
        for packet in image.demux(source):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
        add_sound(container, sound)
    cover.unlink()


@bad_kind("no_index", "its end, with the index, is missing")
def _no_index(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


@bad_kind("index_only", "an index without the frames")
def _index_only(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP, muxer={"movflags": "+faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])


@bad_kind("overwritten", "noise where frames were", shown=tuple(range(NUM_FRAMES)))
def _overwritten(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP, muxer={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = slice(start + (len(data) - start) // 4, start + (len(data) - start) * 3 // 4)
    data[middle] = np.random.default_rng(seed).bytes(middle.stop - middle.start)
    path.write_bytes(data)


@bad_kind("one_damaged", "noise in one of its frames", shown=tuple(range(NUM_FRAMES)))
def _one_damaged(path: Path, seed: int) -> None:
    encode(path, pictures(seed=seed), options=X264 | GOP, muxer={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    start, size = packets[10]
    # Its length and its first bytes stay, so that it is recognised as a frame.
    data[start + 24 : start + size] = np.random.default_rng(seed).bytes(size - 24)
    path.write_bytes(data)


@bad_kind("playlist", "a list of other files, which a stranger must not make us open", suffix=".mp4")
def _playlist(path: Path, seed: int) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")


@bad_kind("concat", "a list of other files, in another format")
def _concat(path: Path, seed: int) -> None:
    path.write_text("ffconcat version 1.0\nfile /etc/hostname\n")


@bad_kind("huge_frames", "fewer than 100 bytes that claim 16000 x 16000 pixels", suffix=".gif")
def _huge_frames(path: Path, seed: int) -> None:
    path.write_bytes(gif(16000, 16000, 2))


@bad_kind("memory_bomb", "frames of 256 MB each, more than a small child may hold", suffix=".gif", shown=(0,) * 500)
def _memory_bomb(path: Path, seed: int) -> None:
    path.write_bytes(gif(8000, 8000, 500))


@bad_kind("endless", "a small file of 20,000 large frames: hours of decoding", suffix=".gif", shown=(0,) * 20_000)
def _endless(path: Path, seed: int) -> None:
    path.write_bytes(gif(4000, 4000, 20_000))


@bad_kind("fifo", "a pipe into which nobody writes: opening it never returns", hangs=True)
def _fifo(path: Path, seed: int) -> None:
    os.mkfifo(path)


def gif(width: int, height: int, count: int) -> bytes:
    """Return a GIF of large frames, each of which stores only one pixel: 35 bytes a frame."""
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    control = b"\x21\xf9\x04\x04\x0a\x00\x00\x00"
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return header + (control + image) * count + b"\x3b"
