"""Schema of clips tables: analysis settings, columns of shards and index, manifest, and rows of a video.

A clips table has one row per clip of a corpus: its source, scores, and whether the policy keeps it. Nothing in it
depends on a resolution or an encoder: latents of any cascade are encoded from the same clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import pyarrow as pa
import pydantic

from videogen.data.datasets.clips import clip_id
from videogen.data.tables import ManifestSection, TableKind, TableManifest
from videogen.data.video import VideoInfo
from videogen.errors import UserError
from videogen.hashing import content_hash

KIND = "clips"
SCHEMA_VERSION = 2
ANALYSIS_VERSION = 1
"""Increased when the shots, scores or hashes of a video change: part of the identity, so videos are analysed again."""

VIDEO_COLUMNS = ("video_id", "source", "path", "version")
BLOB_COLUMNS = ("thumbnail", "embedding")
"""Columns of the shards that the index omits: they are large, and no filter reads them."""
_LIMITS = {"num_frames": (1, 100_000), "fps": (0.001, 1000), "stride_frames": (1, 1_000_000)}
"""Allowed ranges of settings; no video gives clips beyond them, and 32 bits might not hold the values."""


# --- manifest --------------------------------------------------------------------------------------------------------


class _SpecSection(ManifestSection):
    num_frames: Annotated[int, pydantic.Field(ge=1)]
    fps: Annotated[float, pydantic.Field(gt=0)]
    scores: list[str]


class ClipsManifest(TableManifest):
    """Manifest of a clips table: the keys that its readers need."""

    spec: _SpecSection
    scores: list[str]
    policy: dict[str, str]
    has_captions: bool


CLIPS = TableKind(
    KIND,
    SCHEMA_VERSION,
    ClipsManifest,
    written_by="jobs/ingest.py",
    vector_columns=("embedding",),
    provenance_keys=("facts", "decoders"),
)


# --- settings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IngestSpec:
    """Analysis settings of ingestion. All of them determine the rows, so all of them are part of the identity."""

    num_frames: int
    """Frames of a clip."""
    fps: float
    """Target frame rate of clips."""
    stride_frames: int | None = None
    """Frames from one clip's start to the next; None for clips without overlap."""
    split_shots: bool = False
    """Whether shots are detected, so that no clip contains a cut."""
    scores: tuple[str, ...] = ()
    """Names of `videogen.data.curation.scores.SCORES`."""
    hashes: bool = False
    """Whether clips get a perceptual hash, for deduplication."""
    thumbnails: bool = False
    decoder: str = "auto"
    embedding: str | None = None
    """Folder of a CLIP model; fills `embedding`."""
    aesthetic: str | None = None
    """Folder of an aesthetic head on that CLIP model; fills `aesthetic`."""
    captioner: str | None = None
    """Folder of an image-to-text model; captions the clips that have no caption."""

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                option = "stride" if name == "stride_frames" else name.replace("_", "-")
                raise UserError(f"--{option} is {value}, but it must be from {least} to {most}: choose another.")

    @property
    def decodes(self) -> bool:
        """Whether frames are decoded; otherwise only headers are read."""
        return bool(self.split_shots or self.scores or self.hashes or self.thumbnails or self.is_learned)

    @property
    def is_learned(self) -> bool:
        """Whether networks process the clips."""
        return any((self.embedding, self.aesthetic, self.captioner))

    def identity(self, fingerprints: Mapping[str, str] | None = None) -> str:
        """Return the identity of rows made with these settings.

        Args:
            fingerprints: of the networks by field name, so that the location of their folders does not matter.
        """
        values = asdict(self)
        values["fps"] = float(self.fps)  # 16 and 16.0 are equal but have different JSON
        for name, fingerprint in (fingerprints or {}).items():
            values[name] = fingerprint
        return content_hash(KIND, SCHEMA_VERSION, ANALYSIS_VERSION if self.decodes else 0, values)


# --- columns ---------------------------------------------------------------------------------------------------------


def clips_schema(scores: Sequence[str]) -> pa.Schema:
    """Return the columns of a shard; each score is a float32 column of its name."""
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


def clips_index_schema(scores: Sequence[str]) -> pa.Schema:
    """Return the columns of the index, which conditions may use."""
    columns = [field for field in clips_schema(scores) if field.name not in BLOB_COLUMNS]
    added = [
        pa.field("duplicate_of", pa.string(), nullable=False),  # clip_id of the first near duplicate, or ""
        pa.field("dropped_by", pa.string(), nullable=False),  # name of the first policy rule that drops it, or ""
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
    return pa.schema([*columns, *added])


# --- rows ------------------------------------------------------------------------------------------------------------


def clip_rows(
    item: Mapping[str, Any], analysis: Mapping[str, Any], body: bytes, scores: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of one video.

    Args:
        item: the video: item_id, video_id, uri, path, version, given_caption.
        analysis: header of the response of the analysis (`videogen.data.curation`).
        body: body of that response: thumbnails.
        scores: names of the score columns.
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


def _clip_row(video: Mapping[str, Any], clip: Mapping[str, Any], body: bytes, scores: Sequence[str]) -> dict[str, Any]:
    row = {
        **video,
        "clip_id": clip_id(video["source"], video["version"], clip["indices"]),
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
