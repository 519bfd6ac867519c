"""The clips table: one row a clip of a corpus, with where it comes from, how it scores, and whether it is kept.

A table is a folder whose `manifest.json` is written last and is all that readers trust (see `data/tables`). Nothing in
it depends on a resolution or on an encoder: latents of any cascade are encoded from the same clips.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from videogen import storage
from videogen.data.video import VideoInfo
from videogen.errors import UserError
from videogen.hashing import content_hash

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "clips"
SCHEMA_VERSION = 2
ANALYSIS_VERSION = 1
"""To be raised when shots, scores or hashes change for the same video: it names units, so all are looked at again."""

VIDEO_COLUMNS = ("video_id", "source", "path", "version")
BLOB_COLUMNS = ("thumbnail", "embedding")
"""Columns of the shards that the index leaves out: they are large, and no filter reads them."""
_LIMITS = {"num_frames": (1, 100_000), "fps": (0.001, 1000), "stride_frames": (1, 1_000_000)}
"""What numbers of a specification may be: above, no video gives a clip, and 32 bits may not hold them."""


@dataclass(frozen=True)
class IngestSpec:
    """What is found out about every video. All of it decides what rows say, so all of it names their units."""

    num_frames: int
    """Frames of a clip."""
    fps: float
    """Frames a second that clips aim at."""
    stride_frames: int | None = None
    """Frames from one clip's start to the next; None for clips without overlap."""
    split_shots: bool = False
    """Whether shots are looked for, so that no clip has a cut in it."""
    scores: tuple[str, ...] = ()
    """Names of `videogen.data.curation.scores.SCORES`."""
    hashes: bool = False
    """Whether clips get a perceptual hash, by which near duplicates are found."""
    thumbnails: bool = False
    decoder: str = "auto"
    embedding: str | None = None
    """Folder of a CLIP model; fills `embedding`."""
    aesthetic: str | None = None
    """Folder of an aesthetic head on that CLIP model; fills `aesthetic`."""
    captioner: str | None = None
    """Folder of an image-to-text model; describes the clips that have no caption."""

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                option = "stride" if name == "stride_frames" else name.replace("_", "-")
                raise UserError(f"--{option} is {value}, but it is a number from {least} to {most}: choose another.")

    @property
    def decodes(self) -> bool:
        """Whether pictures are looked at, or headers alone."""
        return bool(self.split_shots or self.scores or self.hashes or self.thumbnails or self.is_learned)

    @property
    def is_learned(self) -> bool:
        """Whether networks look at the clips."""
        return any((self.embedding, self.aesthetic, self.captioner))

    def identity(self, fingerprints: Mapping[str, str] | None = None) -> str:
        """Return the hash that units of this specification carry.

        Args:
            fingerprints: of the networks by field name; where their folders lie does not matter.
        """
        values = asdict(self)
        values["fps"] = float(self.fps)  # 16 and 16.0 are one rate, and two texts
        for name, fingerprint in (fingerprints or {}).items():
            values[name] = fingerprint
        return content_hash(KIND, SCHEMA_VERSION, ANALYSIS_VERSION if self.decodes else 0, values)


def clips_schema(scores: Sequence[str]) -> "pa.Schema":
    """Return the columns of a shard; one float32 column a score, named like it."""
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    return pa.schema(
        [
            pa.field("item_id", text, nullable=False),
            pa.field("clip_id", text, nullable=False),
            *(pa.field(name, text, nullable=False) for name in VIDEO_COLUMNS),
            pa.field("caption", text),
            pa.field("caption_source", text),  # "given" or "generated"
            pa.field("shot", number, nullable=False),
            pa.field("frame_indices", pa.list_(number), nullable=False),
            pa.field("start_s", pa.float64(), nullable=False),
            pa.field("end_s", pa.float64(), nullable=False),
            pa.field("fps", pa.float32(), nullable=False),
            pa.field("width", number, nullable=False),
            pa.field("height", number, nullable=False),
            pa.field("video_fps", pa.float64(), nullable=False),
            pa.field("video_frames", pa.int64(), nullable=False),
            pa.field("video_duration_s", pa.float64(), nullable=False),
            pa.field("variable_fps", pa.bool_(), nullable=False),
            pa.field("rotation", number, nullable=False),
            pa.field("sample_aspect_ratio", pa.float32(), nullable=False),
            pa.field("container", text, nullable=False),
            pa.field("codec", text, nullable=False),
            pa.field("pixel_format", text, nullable=False),
            pa.field("color_range", text, nullable=False),
            pa.field("has_audio", pa.bool_(), nullable=False),
            pa.field("decoder", text, nullable=False),
            *(pa.field(name, pa.float32()) for name in scores),
            pa.field("perceptual_hash", pa.uint64()),
            pa.field("embedding", pa.large_binary()),
            pa.field("thumbnail", pa.large_binary()),
        ]
    )


def index_schema(scores: Sequence[str]) -> "pa.Schema":
    """Return the columns of the index, which is what expressions may name."""
    import pyarrow as pa

    columns = [field for field in clips_schema(scores) if field.name not in BLOB_COLUMNS]
    added = [
        pa.field("duplicate_of", pa.string(), nullable=False),  # clip_id of the first of its kind, or ""
        pa.field("dropped_by", pa.string(), nullable=False),  # name of the first rule that it breaks, or ""
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
    return pa.schema([*columns, *added])


def clip_rows(item: Mapping[str, Any], analysis: Mapping[str, Any], body: bytes, scores: Sequence[str]) -> list[dict]:
    """Return the rows of one video.

    Args:
        item: the video: item_id, video_id, uri, path, version, given_caption.
        analysis: header of `videogen.data.curation.analyse_request`.
        body: its thumbnails.
        scores: names of the columns to fill.
    """
    info = VideoInfo(**analysis["info"])
    video = {
        "item_id": item["item_id"],
        "video_id": item["video_id"],
        "source": item["uri"],
        "path": item["path"],
        "version": item["version"],
        "caption": item["given_caption"],
        "caption_source": "given" if item["given_caption"] is not None else None,
        "width": info.display_width,
        "height": info.height,
        "video_fps": info.fps,
        "video_frames": info.num_frames,
        "video_duration_s": info.duration_s,
        **{
            name: getattr(info, name)
            for name in ("variable_fps", "rotation", "sample_aspect_ratio", "container", "codec")
        },
        **{name: getattr(info, name) for name in ("pixel_format", "color_range", "has_audio")},
        "decoder": analysis["decoder"],
    }
    return [_clip_row(video, clip, body, scores) for clip in analysis["clips"]]


def _clip_row(video: Mapping[str, Any], clip: Mapping[str, Any], body: bytes, scores: Sequence[str]) -> dict:
    row = {
        **video,
        "clip_id": content_hash(video["source"], video["version"], tuple(clip["indices"])),
        "frame_indices": clip["indices"],
        **{name: clip[name] for name in ("shot", "start_s", "end_s", "fps")},
        **{name: clip["scores"].get(name) for name in scores},
        "perceptual_hash": int(clip["phash"], 16) if clip.get("phash") else None,
        "embedding": None,
        "thumbnail": None,
    }
    if clip.get("thumbnail"):
        offset, length = clip["thumbnail"]
        row["thumbnail"] = bytes(body[offset : offset + length])
    return row


class ClipsTable:
    """A finished clips table.

    Args:
        uri: its folder.
        manifest: what `open` has read and checked.
    """

    def __init__(self, uri: str, manifest: dict[str, Any]) -> None:
        self.uri = uri
        self.manifest = manifest

    @classmethod
    def open(cls, uri: str) -> "ClipsTable":
        """Open the table at `uri`.

        Raises:
            UserError: no finished clips table there, or one of another schema version.
        """
        from videogen.data.tables.files import MANIFEST_NAME
        from videogen.data.tables.manifest import require_whole
        from videogen.data.tables.published import read_manifest

        uri = storage.absolute(uri)
        storage.require_readable(uri, "Clips")
        manifest = read_manifest(uri)
        if manifest is None or manifest.get("kind") != KIND:
            raise UserError(f"Clips {uri!r} are not a finished clips table: make one with jobs/ingest.py.")
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise UserError(
                f"Clips {uri!r} have schema version {manifest.get('schema_version')!r}, this release reads "
                f"{SCHEMA_VERSION}: ingest again into a new folder."
            )
        require_whole(manifest, storage.join(uri, MANIFEST_NAME))
        return cls(uri, manifest)

    def require_index(self) -> None:
        """Look at the end of each file of the index, in seconds.

        Raises:
            UserError: one of them is gone or damaged.
        """
        from videogen.data.tables.index import require_index

        require_index(self.uri, self.manifest)

    @property
    def spec(self) -> IngestSpec:
        """How the clips were made."""
        known = {field.name for field in fields(IngestSpec)}
        values = {name: value for name, value in self.manifest["spec"].items() if name in known}
        return IngestSpec(**{**values, "scores": tuple(values["scores"])})

    @property
    def schema(self) -> "pa.Schema":
        """The columns that `batches` may read and expressions may name."""
        return index_schema(self.manifest["scores"])

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the rows, through the names of files in the manifest."""
        from videogen.data.tables.published import content_of

        return content_hash(content_of(self.manifest))

    @property
    def has_captions(self) -> bool:
        """Whether any clip is described."""
        return bool(self.manifest["has_captions"])

    def batches(self, columns: Sequence[str] | None = None, where: str | None = None) -> "Iterator[pa.RecordBatch]":
        """Yield rows in the table's order, those that the SQL expression `where` chooses."""
        from videogen.data.tables.index import read_index

        yield from read_index(self.uri, self.manifest, columns, where)
