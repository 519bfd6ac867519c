"""Import from WebDataset: videos and captions from tar shards of samples.

The files of a sample share a name up to the first dot. Its videos are copied, with the caption from `.txt` or `.json`;
other files of a sample are ignored.
"""

import contextlib
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from videogen import storage
from videogen.cli import suggest
from videogen.data.interchange._source_videos import MEMBER_SUFFIXES
from videogen.data.interchange._unpacking import (
    CAPTION_NAMES,
    COPY_BYTES,
    MAX_TEXT_BYTES,
    MAX_VIDEO_BYTES,
    Caption,
    DamagedError,
    Found,
    ImportResult,
    TooLargeError,
    caption_of,
    copy_video,
    safe_name,
    unpack_shards,
)
from videogen.data.video import reason_of
from videogen.errors import UserError

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")

_MAX_HEADER_BYTES = 1 << 20
"""Size limit of extended headers (long names etc.), which tarfile reads into memory."""
_MAX_NAMES_SHOWN = 20


def import_webdataset(
    shards: Sequence[str],
    output: str,
    caption: str | None = None,
    max_video_bytes: int = MAX_VIDEO_BYTES,
    advance: Callable[[], None] = lambda: None,
) -> ImportResult:
    """Copy the videos of tar shards into a folder that `open_source` reads; a repeated call resumes.

    Names in a shard cannot lead out of the folder. Links, devices, unreadable captions and videos above the size limit
    become rows of errors.parquet.

    Args:
        shards: URIs of tar files, optionally gzipped.
        output: folder.
        caption: key of the caption in a sample's json; None: its .txt, else the first of `CAPTION_NAMES`.
        max_video_bytes: size limit of a video.
        advance: called after each shard.

    Raises:
        UserError: no video in any shard, no caption with that key, or `output` is not writable.
    """
    if caption is not None:
        _require_caption(shards, caption)

    def unpack(shard: str, folder: str) -> Iterator[Found]:
        return _unpack(shard, storage.absolute(output), folder, caption, max_video_bytes)

    return unpack_shards(shards, output, unpack, {"caption": caption, "max": max_video_bytes}, advance)


def _require_caption(shards: Sequence[str], caption: str) -> None:
    """Raise `UserError` unless some sample has a caption with this key; usually the first one does."""
    seen: dict[str, None] = {}
    for shard in shards:
        with contextlib.suppress(DamagedError):
            for member, chunks in _members(shard):
                if member.name.lower().endswith(".json") and member.size <= MAX_TEXT_BYTES and member.isreg():
                    with contextlib.suppress(ValueError, RecursionError):
                        values = _json_object(b"".join(chunks))
                        if values.get(caption) is not None:
                            return
                        seen |= dict.fromkeys(values)
    names = list(seen)[:_MAX_NAMES_SHOWN]
    there = f"only {', '.join(names)}: name one of these" if names else "nor any other name: leave --caption out"
    raise UserError(
        f"No json in {shards[0]!r}{' or the other shards' if len(shards) > 1 else ''} has a caption "
        f"{caption!r}, {there}.{suggest(caption, seen)}"
    )


def _unpack(shard: str, output: str, folder: str, caption: str | None, max_video_bytes: int) -> Iterator[Found]:
    """Yield the items of a shard sample by sample and write its videos; the tar is read in one sequential pass."""
    sample = _Sample("", caption)
    taken: set[str] = set()
    try:
        for member, chunks in _members(shard):
            key = split_name(member.name)[0]
            if key != sample.key:
                yield from sample.found()
                sample = _Sample(key, caption)
            if not member.isdir():
                location = f"{folder}/{safe_name(member.name)}"
                sample.add(member, chunks, output, location if location not in taken else "", max_video_bytes)
                taken.add(location)
    except DamagedError as error:
        # Items before the damage are intact.
        sample.items.append(Found("", error=f"the shard cannot be read to its end ({error})"))
    yield from sample.found()


def _members(shard: str) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Yield the members of a tar with their content, which must be read before the next member.

    Raises:
        DamagedError: also while the content is read.
        UserError: the storage failed; the shard is not to blame.
    """
    filesystem, path = storage.fsspec_filesystem(shard)
    with contextlib.ExitStack() as stack:
        with _damage_as_error():
            file = stack.enter_context(filesystem.open(path, "rb"))
            tar = stack.enter_context(tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member))
        while True:
            with _damage_as_error():
                member = tar.next()
            if member is None:
                return
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all in memory
            yield member, _content(tar, member)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    with _damage_as_error():
        file = tar.extractfile(member)
    while file is not None:
        with _damage_as_error():
            chunk = file.read(COPY_BYTES)
        if not chunk:
            return
        yield chunk


@contextlib.contextmanager
def _damage_as_error() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # tarfile has no common base class: e.g. a truncated gzip header is a TypeError.
    except (tarfile.TarError, OSError, EOFError, ValueError, TypeError) as error:
        raise DamagedError(reason_of(error)) from error


class _Member(tarfile.TarInfo):
    """Tar member with a limit on extended headers, and an error instead of a silent end at a damaged header."""

    _NOTES = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a header; tarfile itself takes an invalid header for the end of the archive."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            what = "damaged" if len(buf) == tarfile.BLOCKSIZE else "cut off"
            raise tarfile.ReadError(f"it is {what} where a member should begin") from error

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        # tarfile documents this method as the one to override for special member types.
        if self.type in self._NOTES and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


class _Sample:
    """Files of one sample."""

    def __init__(self, key: str, caption: str | None) -> None:
        self.key = key
        self.items: list[Found] = []
        self._caption_name = caption
        self._text: str | None = None
        self._json: dict[str, Any] = {}

    def add(self, member: tarfile.TarInfo, chunks: Iterator[bytes], output: str, location: str, max_bytes: int) -> None:
        """Add one member: write it if it is a video, read it if it may contain the caption."""
        extension = f".{split_name(member.name)[1].lower()}"
        if not extension.endswith((*MEMBER_SUFFIXES, ".txt", ".json")):
            return
        error = ""
        if not member.isreg():
            error = "it is not a regular file"
        elif extension.endswith(MEMBER_SUFFIXES):
            error = self._add_video(member, chunks, output, location, max_bytes)
        elif member.size > MAX_TEXT_BYTES:
            error = f"it has {member.size} bytes, more than the {MAX_TEXT_BYTES} of a text"
        else:
            error = self._add_text(b"".join(chunks), is_json=extension.endswith(".json"))
        if error:
            self.items.append(Found(member.name, error=error))

    def _add_video(
        self, member: tarfile.TarInfo, chunks: Iterator[bytes], output: str, location: str, max_bytes: int
    ) -> str:
        if not location:
            return "another member of the shard has this name"
        if member.size > max_bytes:
            return f"it has {member.size} bytes, more than {max_bytes}"
        try:
            copy_video(chunks, storage.join(output, location), max_bytes)
        except TooLargeError as error:
            return str(error)
        self.items.append(Found(member.name, location))
        return ""

    def _add_text(self, content: bytes, is_json: bool) -> str:
        try:
            if is_json:
                self._json = _json_object(content)
            else:
                self._text = content.decode("utf-8-sig")
        except (ValueError, RecursionError) as error:
            return f"it cannot be read ({' '.join(str(error).split())})"
        return ""

    def found(self) -> list[Found]:
        """Return the sample's videos with their caption, and its errors."""
        caption, errors = self._caption()
        if not any(item.video for item in self.items):
            return self.items
        text, num_given = caption
        items = [item._replace(caption=text, num_captions=num_given) if item.video else item for item in self.items]
        return items + errors

    def _caption(self) -> tuple[Caption, list[Found]]:
        names = [self._caption_name] if self._caption_name is not None else CAPTION_NAMES
        errors: list[Found] = []
        if self._caption_name is None and (found := caption_of(self._text)).text:
            return found, []
        for name in names:
            try:
                if (found := caption_of(self._json.get(name))).text:
                    return found, errors
            except ValueError as error:
                errors.append(Found(f"{self.key}.json", error=f"of {name!r}: {error}"))
        return Caption(None, 0), errors


def _json_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: not a JSON object.
    """
    value = json.loads(content.decode("utf-8-sig"))
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - the file is wrong, not the call
    return value


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and extension: "a/b.c.mp4" is the file "c.mp4" of the sample "a/b"."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension
