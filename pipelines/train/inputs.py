"""Inputs and outputs of a training run, found and validated before any work and without Ray."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.encode import preflight
from pipelines.encode.corpus import Corpus, is_clips_table
from pipelines.encode.plan import require_clips_for
from pipelines.runner import step_records
from pipelines.train.stage import batch_plan
from videogen import storage
from videogen.cli import suggest
from videogen.data.datasets.latents_table import (
    LatentsTable,
    discover_tables,
    encoder_fingerprint,
    require_same_encoder,
)
from videogen.data.sources import CAPTIONS_NAMES
from videogen.data.synthetic import CorpusSize
from videogen.data.tables import MANIFEST_NAME
from videogen.errors import UserError
from videogen.models.pretrained import is_hub_id, open_component, require_parts
from videogen.stages import STAGES, CascadeConfig, dataset_kind, objective_spec, stage_definition, stage_kind
from videogen.training.datasets import open_clips, where_of

_CORPORA = ("captioned", "unlabeled")


@dataclass(frozen=True)
class CascadeOptions:
    """Options of a training run."""

    output: str
    """Model folder."""
    data: str | None = None
    """Corpus of videos, or latents; None: the demonstration corpus, made first, in `data/` beside the output."""
    latents: str | None = None
    """Where latents of a corpus go; None: `latents/` beside the output."""
    stages: tuple[str, ...] | None = None
    """What to train; None: all that the preset trains. What they need is made too."""
    init_from: str | None = None
    corpus_size: CorpusSize = field(default_factory=CorpusSize)
    """Size of the demonstration corpus."""


@dataclass(frozen=True)
class Encoding:
    """Table of latents to encode."""

    corpus: str
    table: str
    config: CascadeConfig
    """With the number of frames that its clips have."""


class CascadeInput:
    """Validated input of one configuration.

    Raises:
        UserError: the first invalid input.
    """

    def __init__(self, config: CascadeConfig, options: CascadeOptions) -> None:
        self.config = config
        self.stages = _chosen_stages(config, options.stages)
        # Absolute, because workers run in other directories.
        self.output = storage.absolute(options.output)
        beside = storage.require_parent(self.output, "Output")
        # Before anything is read: access errors are reported here first.
        storage.require_writable(self.output, "Output")
        self.makes_corpora = options.data is None
        self.corpus_size = options.corpus_size
        self.data = storage.absolute(options.data or storage.join(beside, "data"))
        self.latents = storage.absolute(options.latents or storage.join(beside, "latents"))
        self._init_from = options.init_from
        if self._init_from and not is_hub_id(self._init_from):
            self._init_from = storage.absolute(self._init_from)
        self.tables = [] if self.makes_corpora else _tables(self.data, config)
        self._opened: dict[str, Corpus] = {}
        self.corpora = {} if self.tables else self._find_corpora()
        _check_init_from(self._init_from, self.stages, config)
        for stage in self.stages:
            batch_plan(config, stage)
        self._check_captions()
        self._check_videos()
        self.encoder_source = self._source_of_latents()
        """The folder that holds the `autoencoder/` of given latents; None without latents, or of a preset's own."""
        self._check_latents()

    @property
    def encodes(self) -> bool:
        """Whether latents are needed: by every stage that does not train on raw video."""
        return any(dataset_kind(stage) != "raw" for stage in self.stages)

    @property
    def table_uris(self) -> list[str]:
        """Tables of latents to train on."""
        if self.tables:
            return [table.uri for table in self.tables]
        return [encoding.table for encoding in self.encodings.values()]

    @property
    def encodings(self) -> dict[str, Encoding]:
        """Tables of latents to encode, by step name: one per corpus and clip length."""
        wanted = {}
        for name, corpus in self.corpora.items():
            for config in self.config.of_each_length():
                is_bucket = config.num_frames != self.config.num_frames
                table = f"{name}_{config.num_output_frames}_frames" if is_bucket else name
                # The step name is stable when clip lengths are added, because its table is the same.
                step = f"encode_{table}" if is_bucket or len(self.corpora) > 1 else "encode"
                wanted[step] = Encoding(corpus, storage.join(self.latents, table), config)
        return wanted

    def init_from(self, stage: str) -> str | None:
        """Return what a stage starts from; None for a stage that has no counterpart in an image model."""
        return self._init_from if objective_spec(stage).image_model else None

    def _find_corpora(self) -> dict[str, str]:
        """Return the corpora by the name of their table of latents."""
        if self.makes_corpora:
            return {name: storage.join(self.data, name) for name in _CORPORA}
        parts = {name: storage.join(self.data, name) for name in _CORPORA}
        found = {name: uri for name, uri in parts.items() if storage.exists(uri)} or {"clips": self.data}
        self._opened = {name: Corpus(uri) for name, uri in found.items()}
        return found

    def _check_captions(self) -> None:
        wanted = [stage for stage in self.stages if dataset_kind(stage) == "captioned"]
        if self.tables:
            for stage in self.stages:
                if dataset_kind(stage) != "raw":
                    uris = [table.uri for table in self.tables]
                    open_clips(dataset_kind(stage), uris, self.config, where_of(stage, self.config))
            self._check_lengths_of_latents(any(dataset_kind(stage) == "captioned" for stage in self.stages))
            return
        if self.makes_corpora or not self.encodes:
            return
        # Checked now because encoding starts only after the autoencoder has been trained.
        if wanted and not any(corpus.has_captions for corpus in self._opened.values()):
            raise UserError(
                f"Data {self.data!r} has no captions, which {', '.join(wanted)} need: put a {CAPTIONS_NAMES[0]} with "
                f"the columns `video` and `caption` beside the videos, or train only others with --stages."
            )

    def _check_lengths_of_latents(self, captioned: bool) -> None:
        there = {table.manifest["num_frames"] for table in self.tables if table.has_captions or not captioned}
        missing = [frames for frames in self.config.clip_lengths if frames not in there]
        if missing:
            raise UserError(
                f"Data {self.data!r} has no {'captioned ' if captioned else ''}latents of clips of {missing[0]} "
                f"frames, which num_frames and num_frames_buckets ask for: encode them too (--set num_frames="
                f"{(missing[0] - 1) // self.config.temporal_factor + 1}), or remove these lengths."
            )

    def _check_videos(self) -> None:
        if self.makes_corpora or self.tables:
            return
        for corpus in self._opened.values():
            preflight.require_usable_video(corpus, self.config)
            if self.encodes:
                self._check_lengths_of_videos(corpus)

    def _check_lengths_of_videos(self, corpus: Corpus) -> None:
        if corpus.clips is None:
            for config in self.config.of_each_length()[1:]:
                preflight.require_usable_video(corpus, config)
            return
        require_clips_for(corpus.clips, self.config)
        if self.config.num_frames_buckets:
            raise UserError(
                f"The clips in {corpus.uri!r} have one length, but num_frames_buckets asks for others: make a clips "
                f"table for each length, encode each with jobs/encode_latents.py, and give the latents with --data."
            )

    def _check_latents(self) -> None:
        """Refuse existing latents of another autoencoder before one is trained."""
        if self.tables or not self.encodes:
            return
        storage.require_writable(self.latents, "Latents")
        for step, encoding in self.encodings.items():
            # Latents of this model's own earlier autoencoder are encoded again.
            is_ours = step_records.read(self.output, step) is not None
            if not is_ours and storage.exists(storage.join(encoding.table, MANIFEST_NAME)):
                preflight.require_own_latents(encoding.table, self._known_encoders(), f"the model {self.output!r}")

    def _known_encoders(self) -> list[str]:
        """Return the fingerprints of the autoencoders of the output folder and of the preset."""
        found = []
        if storage.exists(storage.join(self.output, "autoencoder", "config.json")):
            found.append(encoder_fingerprint(storage.join(self.output, "autoencoder")))
        if self.config.autoencoder.pretrained:
            with open_component(self.config.autoencoder.pretrained, "vae") as vae:
                found.append(encoder_fingerprint(str(vae)))
        return found

    def _source_of_latents(self) -> str | None:
        """Return the folder whose `autoencoder/` made the given latents; None if it is the preset's VAE."""
        if not self.tables:
            return None
        wanted = self.tables[0].encoder_fingerprint
        for folder in (self.output, self.data, *(table.uri for table in self.tables)):
            uri = storage.join(folder, "autoencoder")
            if storage.exists(storage.join(uri, "config.json")) and encoder_fingerprint(uri) == wanted:
                return folder
        pretrained = self.config.autoencoder.pretrained
        if pretrained:
            with open_component(pretrained, "vae") as vae:
                require_same_encoder(self.tables[0], encoder_fingerprint(str(vae)), f"the VAE of {pretrained!r}")
            return None
        raise UserError(
            f"The latents in {self.data!r} were made by an autoencoder that was not found (fingerprint {wanted}): copy "
            f"its folder to {storage.join(self.output, 'autoencoder')!r}, or give the videos with --data instead."
        )


def _chosen_stages(config: CascadeConfig, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the stages to train, in the order of the cascade."""
    known = config.trainable_stages()
    if names is None:
        return known
    chosen = set()
    for name in names:
        matches = [stage for stage in known if name in (stage, stage_kind(stage))]
        if not matches:
            raise UserError(f"There is no stage {name!r} to train.{suggest(name, known)} There are {', '.join(known)}.")
        chosen.update(matches)
    return tuple(stage for stage in known if stage in chosen)


def _tables(data: str, config: CascadeConfig) -> list[LatentsTable]:
    """Return the tables of latents at `data`; none for a corpus of videos."""
    storage.require_readable(data, "Data")
    if is_clips_table(data):
        return []
    folders = (data, *storage.list_dirs(data))
    if not any(storage.exists(storage.join(folder, MANIFEST_NAME)) for folder in folders):
        return []
    tables = discover_tables(data)
    for table in tables:
        table.require_matches(config)
    return tables


def _check_init_from(init_from: str | None, stages: Sequence[str], config: CascadeConfig) -> None:
    if not init_from:
        return
    begun = [stage for stage in stages if objective_spec(stage).image_model]
    parts = {objective_spec(stage).image_model for stage in begun}
    require_parts(init_from, [part for part in ("vae", "unet") if part in parts], "--init-from")
    for stage in begun:
        config.stage_config(stage).require_can_start_from_image_model(stage)
    if not begun:
        raise UserError(
            f"--init-from has no effect on {', '.join(stages)}: leave it out, or train one of "
            f"{', '.join(_kinds_with_image_model())} with --stages."
        )


def _kinds_with_image_model() -> list[str]:
    objectives = {kind: stage_definition(kind).objective for kind in STAGES}
    return [kind for kind, objective in objectives.items() if objective and objective.image_model]
