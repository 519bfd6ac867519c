"""Units and meanings of the columns of published tables; the generated reference shows them.

The schemas are in `clips_schema`, `latents_schema`, `tables.files` and `tables.commit_log`; a test fails for a column
that is missing here.
"""

from typing import NamedTuple


class Column(NamedTuple):
    """Description of a column for people."""

    meaning: str
    unit: str = ""


ITEM = Column("name of the work item: a hash of what it is made from")

CLIPS: dict[str, Column] = {
    "item_id": Column("work item that made the row: a hash of the video and of its caption"),
    "clip_id": Column("hash of source, version and frame indices; the name of the clip everywhere"),
    "video_id": Column("hash of the video's URI and version"),
    "source": Column("URI of the video"),
    "path": Column("path of the video as the input lists it, relative to its folder"),
    "version": Column("what changes when the file does: size and time (local), ETag (S3), or as the manifest says"),
    "caption": Column("caption of the video, or null"),
    "caption_source": Column("`given` or `generated`; null without a caption"),
    "shot": Column("number of the shot within the video, from 0"),
    "frame_indices": Column("frames of the video that make the clip, in the order in which they are shown"),
    "start_s": Column("start of the clip", "seconds"),
    "end_s": Column("end of the clip", "seconds"),
    "fps": Column("rate of the clip", "frames/s"),
    "width": Column("width of the video as displayed: after rotation, with square pixels", "pixels"),
    "height": Column("height of the video as displayed", "pixels"),
    "video_fps": Column("rate of the video", "frames/s"),
    "video_frames": Column("length of the video", "frames"),
    "video_duration_s": Column("duration of the video", "seconds"),
    "variable_fps": Column("whether the time between frames of the video varies"),
    "rotation": Column("rotation that the container asks for", "degrees"),
    "sample_aspect_ratio": Column("width of a stored pixel over its height"),
    "container": Column("container format"),
    "codec": Column("video codec"),
    "pixel_format": Column("pixel format as FFmpeg names it"),
    "color_range": Column("range of the luma values, `tv` or `pc`"),
    "has_audio": Column("whether the video has sound"),
    "decoder": Column("decoder that read the clip"),
    "perceptual_hash": Column(
        "pHash of the average frame, null without contrast; near duplicates differ in few bits", "64 bits"
    ),
    "embedding": Column("CLIP image embedding, float16, with `--embedding`; not in the index"),
    "thumbnail": Column("three frames side by side, JPEG; not in the index"),
}

CLIPS_INDEX: dict[str, Column] = {
    "duplicate_of": Column("`clip_id` of the earlier clip that this one duplicates, or empty"),
    "dropped_by": Column("first rule of `--keep` that the clip breaks, or empty: the clip is kept"),
    "shard": Column("number of the shard in the manifest that holds the row, from 0"),
    "row": Column("number of the row in that shard, from 0"),
}

LATENTS: dict[str, Column] = {
    "item_id": Column("work item that made the row: the clip, in a captioned table hashed with its caption"),
    **{name: CLIPS[name] for name in ("clip_id", "source", "version", "frame_indices", "fps", "width", "height")},
    "caption": Column("caption that `prompt_embeds` encodes, or null"),
    "decoder": CLIPS["decoder"],
}

LATENTS_ARRAYS: dict[str, Column] = {
    "latents_SIZE": Column(
        "mean of the VAE's posterior, (frames, channels, height, width), scaling factor not applied"
    ),
    "latents_SIZE_logvar": Column("log-variance of the posterior, of the same shape"),
    "prompt_embeds": Column("embedded caption, (tokens, channels); only in a captioned table"),
}
"""SIZE is the side of the square latents; a wide clip has the same number of latent pixels in another shape."""

ERRORS: dict[str, Column] = {
    "item_id": ITEM,
    "uri": Column("URI of the input"),
    "stage": Column("step that failed or filtered the input, e.g. `probe`"),
    "error": Column("reason in a few words"),
    "attempts": Column("attempts of all runs together, each of which counts at least one"),
    "log_tail": Column("last lines that a dead decoder process printed"),
}
