"""Plan of an encoding: options, settings and every check before the first video is opened."""

from dataclasses import dataclass, field
from typing import Any

from pipelines.encode.corpus import Corpus
from pipelines.encode.encoders import Encoders, find_encoders
from pipelines.encode.workers import EncodeTask
from pipelines.ingest.pipeline import require_own_clips
from pipelines.runner.preflight import require_apart, require_kind, require_same
from pipelines.runner.run import RunOptions
from videogen import storage
from videogen.data.datasets.clips import ClipSpec
from videogen.data.datasets.clips_schema import SCHEMA_VERSION as CLIPS_SCHEMA_VERSION
from videogen.data.datasets.clips_schema import IngestSpec, clips_index_schema
from videogen.data.datasets.clips_table import ClipsTable
from videogen.data.datasets.latents_schema import KIND, LATENTS, SCHEMA_VERSION
from videogen.data.tables import check_expression, read_manifest
from videogen.data.video import require_decoder
from videogen.errors import UserError
from videogen.hashing import content_hash
from videogen.stages import CascadeConfig

CLIPS_FOLDER = "clips"
"""Sub-folder of a latents table with the clips table of a raw input."""
_SAME_FPS = 1e-6


@dataclass(frozen=True)
class EncodeOptions:
    """Options of an encoding: clips to take, use of the cluster, handling of failures."""

    encoders: int | None = None
    """Actors with the VAE; None: one for each GPU of the cluster, or without GPUs one for each free core, and more as
    the cluster grows."""
    where: str | None = None
    """SQL condition on the columns of the clips table, applied in addition to its policy."""
    with_dropped: bool = False
    """Whether clips that the policy drops are taken as well."""
    decoder: str = "auto"
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class EncodeJob:
    """Validated settings of an encoding, known before any video is opened."""

    corpus: Corpus
    captions: str | None
    spec: ClipSpec
    config: CascadeConfig
    encoders: Encoders
    output: str
    decoder: str
    limit_s: float

    @property
    def identity(self) -> str:
        """Hash of all settings that determine the latents of a clip."""
        return content_hash(KIND, SCHEMA_VERSION, self.about)

    @property
    def about(self) -> dict[str, Any]:
        """Settings that determine the latents of a clip, as in the manifest."""
        return {
            "encoder_fingerprint": self.encoders.autoencoder_fingerprint,
            "text_encoder_fingerprint": self.encoders.text_encoder_fingerprint,
            "latent_sizes": list(self.config.latent_sizes),
            "clip": {**self.spec.as_dict(), "read_with": self.decoder},
        }

    @property
    def task(self) -> EncodeTask:
        """Settings for the workers."""
        sizes, factor = tuple(self.config.latent_sizes), self.config.vae_scale_factor
        return EncodeTask(
            self.output, self.identity, self.encoders, sizes, factor, self.spec, self.decoder, self.limit_s
        )


def prepare(
    input_uri: str,
    output_uri: str,
    config: CascadeConfig,
    autoencoder: str,
    captions: str | None = None,
    options: EncodeOptions | None = None,
) -> EncodeJob:
    """Validate every argument of `encode` and open its input.

    Raises:
        UserError: the first invalid argument.
    """
    output = storage.absolute(output_uri)
    corpus = Corpus(input_uri, captions, "Input")
    if corpus.clips is not None and captions is not None:
        raise UserError(
            f"--captions {captions!r} has no effect on a clips table, which has its own captions: give it to "
            f"jobs/ingest.py."
        )
    options = options or EncodeOptions()
    require_fitting(corpus, output, config, options)
    encoders = find_encoders(autoencoder, config, captioned=corpus.has_captions)
    storage.require_writable(output, "Output")
    job = EncodeJob(
        corpus, captions, ClipSpec.of(config), config, encoders, output, options.decoder, options.run.limit_s
    )
    _require_own(job, options.run.replace)
    return job


def clips_of_folder(config: CascadeConfig, decoder: str) -> IngestSpec:
    """Return the specification for clips of a plain folder: all windows, from headers alone."""
    return IngestSpec(config.num_output_frames, config.output_fps, decoder=decoder)


def require_fitting(corpus: Corpus, output: str, config: CascadeConfig, options: EncodeOptions) -> None:
    """Run the checks that need no autoencoder, whose training may take long.

    Raises:
        UserError: the output is the input, or holds another table, or curated or other clips where those of a folder
            would lie; the clips table is damaged, or of clips of another length or rate; --where is no condition on the
            columns that the clips have, or will have; or the decoder cannot be loaded.
    """
    require_apart(corpus.uri, output)
    require_decoder(options.decoder)
    require_kind(output, LATENTS)
    if corpus.clips is None:
        clips, spec = storage.join(output, CLIPS_FOLDER), clips_of_folder(config, options.decoder)
        _require_plain(clips)
        require_own_clips(clips, spec, spec.identity(), options.run.replace)
    else:
        require_clips_for(corpus.clips, config)
        corpus.clips.require_index()
    if options.where is not None:
        schema = clips_index_schema(()) if corpus.clips is None else corpus.clips.index_schema
        check_expression(options.where, schema, "--where")


def _require_plain(uri: str) -> None:
    """Refuse to replace a curated clips table."""
    manifest = read_manifest(uri) or {}
    if manifest.get("policy") or manifest.get("scores"):
        raise UserError(
            f"{uri!r} holds a table of clips with scores or rules of its own, which encoding a folder would replace: "
            f"give it as --input, or another --output."
        )


def require_clips_for(clips: ClipsTable, config: CascadeConfig) -> None:
    """Raise `UserError` unless the clips have the length and frame rate of the cascade."""
    if clips.spec.num_frames != config.num_output_frames:
        raise UserError(
            f"The clips in {clips.uri!r} have {clips.spec.num_frames} frames, but preset {config.name!r} needs "
            f"{config.num_output_frames}: ingest with this preset."
        )
    if abs(clips.spec.fps - config.output_fps) > _SAME_FPS:
        raise UserError(
            f"The clips in {clips.uri!r} have {clips.spec.fps:g} frames/s, but preset {config.name!r} needs "
            f"{config.output_fps:g}: ingest with this preset."
        )


def is_of_other(job: EncodeJob) -> bool:
    """Return whether the output holds latents made with other settings."""
    manifest = read_manifest(job.output)
    return manifest is not None and manifest.get("identity") != job.identity


def is_of_other_release(output: str) -> bool:
    """Return whether the output, or its clips, has a schema version of another release."""
    ours = {output: SCHEMA_VERSION, storage.join(output, CLIPS_FOLDER): CLIPS_SCHEMA_VERSION}
    manifests = [(read_manifest(uri), version) for uri, version in ours.items()]
    return any(manifest is not None and manifest.get("schema_version") != version for manifest, version in manifests)


def _require_own(job: EncodeJob, replace: bool) -> None:
    manifest = read_manifest(job.output)
    if manifest is None or replace:
        return
    theirs = manifest.get("encoder_fingerprint")
    if theirs != job.encoders.autoencoder_fingerprint:
        raise UserError(
            f"Output {job.output!r} holds latents of another encoder ({theirs}) than the given autoencoder "
            f"({job.encoders.autoencoder_fingerprint}): give another --output, or --replace to encode anew."
        )
    require_same(job.output, job.identity, job.about, replace)


def find_autoencoder(output_uri: str, config: CascadeConfig) -> str | None:
    """Return the default autoencoder: the preset's, one trained earlier, or that of a model beside the output.

    None: the preset has to train its own first.
    """
    if config.autoencoder.pretrained:
        return config.autoencoder.pretrained
    output = storage.absolute(output_uri)
    above = storage.parent(output)
    for folder in (output, storage.join(above, "model"), storage.join(storage.parent(above), "model")):
        if storage.exists(storage.join(folder, "autoencoder", "config.json")):
            return storage.join(folder, "autoencoder")
    return None
