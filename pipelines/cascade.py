"""The cascade as one graph: from raw video or latents to a finished model folder.

    corpora -> text, autoencoder -> encode -> reference, base, upsample, interpolate, decode -> assemble

Independent steps run side by side where the cluster has room; finished steps are skipped; a failed step stops only
what needs it. Calling it again continues.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines import cluster, components, dag, inputs, records
from pipelines.corpora import make_demonstration_corpus
from pipelines.corpus import Corpus, is_clips_table
from pipelines.dag import Node, Outcome, Resources
from pipelines.encode import encode
from pipelines.encode_job import EncodeOptions, is_of_other, prepare
from pipelines.ledgered import RunOptions
from pipelines.progress import Progress
from pipelines.train import TrainProgress, batch_plan, identity, train_stage
from videogen import storage
from videogen.cli import nearest
from videogen.config import CascadeConfig
from videogen.data import LatentsTable, discover_tables, encoder_fingerprint, require_same_encoder
from videogen.data.clips import CAPTIONS_NAME
from videogen.data.latents import MANIFEST_NAME
from videogen.errors import UserError
from videogen.training.datasets import dataset_kind, open_clips, where_of
from videogen.training.objectives import require_can_start_from_image_model

_CORPORA = ("captioned", "unlabeled")
_ANEW = EncodeOptions(run=RunOptions(replace=True))
_FROM_IMAGE_MODEL = ("autoencoder", "reference", "base", "upsample")


@dataclass(frozen=True)
class CascadeOptions:
    """What a run of the cascade reads and writes."""

    output: str
    """Model folder."""
    data: str | None = None
    """Corpus of videos, or latents; None: the demonstration corpus, made first, in `data/` beside the output."""
    latents: str | None = None
    """Where latents of a corpus go; None: `latents/` beside the output."""
    stages: tuple[str, ...] | None = None
    """What to train; None: all that the preset trains. What they need is made too."""
    init_from: str | None = None


class Cascade:
    """The graph for one configuration. Building it checks all input, within seconds and without Ray."""

    def __init__(self, config: CascadeConfig, options: CascadeOptions, progress: Progress) -> None:
        self.config, self.progress = config, progress
        self.stages = _chosen_stages(config, options.stages)
        # Absolute, because workers run in other directories.
        self.output = storage.absolute(options.output)
        beside = storage.require_parent(self.output, "Output")
        # Before anything there is read: what a bucket refuses to reading is refused here, in one sentence.
        storage.require_writable(self.output, "Output")
        self._makes_corpus = options.data is None
        self.data = storage.absolute(options.data or storage.join(beside, "data"))
        self.latents = storage.absolute(options.latents or storage.join(beside, "latents"))
        self._init_from = options.init_from
        if self._init_from and not components.is_hub_id(self._init_from):
            self._init_from = storage.absolute(self._init_from)
        self.tables = [] if self._makes_corpus else _tables(self.data, config)
        self._opened: dict[str, Corpus] = {}
        self.corpora = {} if self.tables else self._find_corpora()
        _check_init_from(self._init_from, self.stages, config)
        for stage in self.stages:
            batch_plan(config, stage)
        self._check_captions()
        self._check_videos()
        self._encoder_source = self._source_of_latents()
        self._check_latents()
        self.nodes = self._nodes()

    def run(self) -> Outcome:
        """Run what is not done yet."""
        pending = dag.pending(self.nodes)
        if pending:
            cluster.connect()
        # All of them now, not each when its turn has come, which may be hours later.
        for stage in self.config.trainable_stages():
            if stage in pending:
                cluster.require_room(self.config, stage)
        return dag.run(self.nodes, cluster.total(), on_skip=lambda node: self.progress.say(f"{node.name}: done before"))

    # --- what is there ---------------------------------------------------------------------------------------------

    def _find_corpora(self) -> dict[str, str]:
        """Return the folders of videos by the name of their table of latents."""
        if self._makes_corpus:
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
            return
        if self._makes_corpus or not self._encodes:
            return
        # Read here as encoding will read them, which begins only when the autoencoder has been trained.
        if wanted and not any(corpus.has_captions for corpus in self._opened.values()):
            raise UserError(
                f"Data {self.data!r} has no captions, which {', '.join(wanted)} need: put a {CAPTIONS_NAME} with the "
                f"columns `video` and `caption` beside the videos, or train only others with --stages."
            )

    def _check_videos(self) -> None:
        if self._makes_corpus or self.tables:
            return
        for corpus in self._opened.values():
            inputs.require_usable_video(corpus, self.config)

    def _check_latents(self) -> None:
        """Refuse latents beside a new model that are not its own, before an autoencoder is trained for them."""
        if self.tables or not self._encodes:
            return
        storage.require_writable(self.latents, "Latents")
        for name in self.corpora:
            table = storage.join(self.latents, name)
            # What this model's own earlier autoencoder has made is made anew.
            is_ours = records.read(self.output, self._encode_step(name)) is not None
            if not is_ours and storage.exists(storage.join(table, MANIFEST_NAME)):
                inputs.require_own_latents(table, self._known_encoders(), f"the model {self.output!r}")

    def _known_encoders(self) -> list[str]:
        """Return the fingerprints of the autoencoder that is there and of the one that the preset names."""
        found = []
        if storage.exists(storage.join(self.output, "autoencoder", "config.json")):
            found.append(encoder_fingerprint(storage.join(self.output, "autoencoder")))
        if self.config.autoencoder.pretrained:
            with components.component(self.config.autoencoder.pretrained, "vae") as vae:
                found.append(encoder_fingerprint(str(vae)))
        return found

    @property
    def _encodes(self) -> bool:
        """Whether latents are needed: by all but the autoencoder."""
        return self.stages != ("autoencoder",)

    @property
    def table_uris(self) -> list[str]:
        """Latents that stages train on."""
        if self.tables:
            return [table.uri for table in self.tables]
        return [storage.join(self.latents, name) for name in self.corpora]

    def init_from(self, stage: str) -> str | None:
        """Return what a stage starts from; the decoder always starts from the model's own image decoder."""
        return self._init_from if stage.partition("_")[0] in _FROM_IMAGE_MODEL else None

    # --- the graph -------------------------------------------------------------------------------------------------

    def _nodes(self) -> list[Node]:
        nodes = [self._corpora_node()] if self._makes_corpus else []
        nodes.append(self._text_node())
        nodes.append(self._autoencoder_node())
        if self._encodes:
            nodes += [self._encode_node(name, uri) for name, uri in self.corpora.items()]
            if self.config.reference.pretrained:
                nodes.append(self._reference_node())
            if "interpolate" not in self.config.trainable_stages():
                nodes.append(self._identity_node())
            nodes += [self._training_node(stage) for stage in self.stages if stage != "autoencoder"]
        nodes.append(self._assemble_node(tuple(node.name for node in nodes)))
        return nodes

    def _node(
        self,
        name: str,
        what: str,
        work: Callable[[], Any],
        who: Callable[[], records.Identity],
        makes: Sequence[str],
        needs: Sequence[str] = (),
    ) -> Node:
        """Return a node whose work is recorded when it has ended well; `makes` are URIs that then exist."""

        def done() -> bool:
            return all(map(storage.exists, makes)) and records.is_done(self.output, name, who())

        def recorded() -> None:
            # Before the work: what arrives while it runs, e.g. a video, may have come too late for it.
            identity_before = who()
            work()
            records.write(self.output, name, identity_before)

        return Node(name, what, recorded, done, tuple(needs))

    def _corpora_node(self) -> Node:
        config = self.config
        settings = [config.num_output_frames, config.output_fps, config.resolution]

        def work() -> None:
            make_demonstration_corpus(self.data, config, self.progress)

        def who() -> records.Identity:
            return records.Identity(records.hash_of(settings), self.data)

        makes = list(self.corpora.values())
        return self._node("corpora", f"demonstration videos into {self.data}", work, who, makes)

    def _text_node(self) -> Node:
        config, source = self.config, self._encoder_source
        has_text = source is not None and all(
            storage.exists(storage.join(source, name)) for name in components.TEXT_PARTS
        )
        origin = source if has_text else config.text.pretrained

        def work() -> None:
            components.write_text(config, self.output, source if has_text else None)

        settings = [config.text.model_dump(mode="json"), config.diffusion.model_dump(mode="json"), config.seed]
        who = records.Identity(records.hash_of(settings), str(origin))
        what = f"frozen text encoder {f'from {origin}' if origin else 'of the preset'}"
        makes = [storage.join(self.output, name) for name in (*components.TEXT_PARTS, "scheduler")]
        return self._node("text", what, work, lambda: who, makes)

    def _autoencoder_node(self) -> Node:
        source = self._encoder_source
        target = storage.join(self.output, "autoencoder")
        if source is None and "autoencoder" in self.config.trainable_stages():
            return self._training_node("autoencoder")
        off_the_shelf = self.config.autoencoder.pretrained
        folder, name = (source, "autoencoder") if source else (str(off_the_shelf), "vae")
        who = records.Identity(records.hash_of([name]), folder)

        def work() -> None:
            if not (source and storage.join(source, name) == target):
                components.copy_component(folder, name, target)

        return self._node("autoencoder", f"image VAE from {folder}", work, lambda: who, [target])

    def _source_of_latents(self) -> str | None:
        """Return the folder that holds the `autoencoder/` whose latents are given; None if there are none, or none."""
        if not self.tables:
            return None
        wanted = self.tables[0].encoder_fingerprint
        for folder in (self.output, self.data, *(table.uri for table in self.tables)):
            uri = storage.join(folder, "autoencoder")
            if storage.exists(storage.join(uri, "config.json")) and encoder_fingerprint(uri) == wanted:
                return folder
        pretrained = self.config.autoencoder.pretrained
        if pretrained:
            with components.component(pretrained, "vae") as vae:
                require_same_encoder(self.tables[0], encoder_fingerprint(str(vae)), f"the VAE of {pretrained!r}")
            return None
        raise UserError(
            f"The latents in {self.data!r} are of an autoencoder that is not there (fingerprint {wanted}): copy its "
            f"folder to {storage.join(self.output, 'autoencoder')!r}, or give the videos with --data instead."
        )

    def _encode_node(self, name: str, corpus: str) -> Node:
        step = self._encode_step(name)
        autoencoder = storage.join(self.output, "autoencoder")
        table = storage.join(self.latents, name)
        config = self.config
        settings: list[Any] = [list(config.latent_sizes), config.num_output_frames, config.output_fps]
        # Added only where there is something to say, so that tables of squares keep their identity.
        settings += [config.frame_sizes] if not config.is_square else []

        def who() -> records.Identity:
            data = [Corpus(corpus).identity(), encoder_fingerprint(autoencoder), table]
            return records.Identity(records.hash_of(settings), records.hash_of(data))

        def work() -> None:
            # Latents of an autoencoder or a preset that has changed since are of no use, and encode() refuses them.
            is_ours = records.read(self.output, step) is not None
            if is_ours and is_of_other(prepare(corpus, table, config, autoencoder, options=_ANEW)):
                storage.remove(table)
            encode(corpus, table, config, autoencoder, progress=self.progress)

        needs = ["text", "autoencoder", *(["corpora"] if self._makes_corpus else [])]
        node = self._node(step, f"{corpus} to latents", work, who, [storage.join(table, MANIFEST_NAME)], needs)
        return replace(node, resources=Resources(alone=True))

    def _reference_node(self) -> Node:
        source = str(self.config.reference.pretrained)
        who = records.Identity(records.hash_of(["reference"]), source)

        def work() -> None:
            components.write_reference(source, self.output)

        makes = [storage.join(self.output, "reference")]
        return self._node("reference", f"text-to-image model from {source}", work, lambda: who, makes)

    def _identity_node(self) -> Node:
        """Without frames between key frames there is nothing to learn, but a model has all of its folders."""
        config = self.config

        def work() -> None:
            components.write_fresh(config, "interpolate", self.output)

        settings = [config.interpolate.model.model_dump(mode="json"), config.autoencoder.model.latent_channels]
        who = records.Identity(records.hash_of([*settings, config.seed]), "")
        makes = [storage.join(self.output, "interpolate")]
        return self._node("interpolate", "nothing to train: temporal_factor is 1", work, lambda: who, makes)

    def _training_node(self, stage: str) -> Node:
        training = self.config.stage_config(stage).training
        init_from = self.init_from(stage)

        def uris() -> list[str]:
            return list(self.corpora.values()) if stage == "autoencoder" else self.table_uris

        def done() -> bool:
            has_weights = storage.exists(storage.join(self.output, stage))
            return has_weights and records.is_done(self.output, stage, identity(self.config, stage, uris(), init_from))

        def work() -> None:
            with self.progress.task(stage, total=training.steps, unit="steps") as task:
                task.update(detail="starting its workers")

                def show(now: TrainProgress) -> None:
                    task.update(completed=now.step, detail=f"loss {now.loss:.3g}")

                train_stage(self.config, stage, uris(), self.output, init_from, show)
                task.update(completed=training.steps)

        if stage == "autoencoder":
            needs = ["corpora"] if self._makes_corpus else []
        else:
            needs = ["text", "autoencoder", *self._encode_names()]
        what = f"{training.steps} steps of {training.batch_size}" + (f" from {init_from}" if init_from else "")
        return Node(stage, what, work, done, tuple(needs), _resources(training))

    def _encode_names(self) -> list[str]:
        return [self._encode_step(name) for name in self.corpora]

    def _encode_step(self, name: str) -> str:
        return f"encode_{name}" if len(self.corpora) > 1 else "encode"

    def _assemble_node(self, needs: tuple[str, ...]) -> Node:
        def missing() -> list[str]:
            names = ("autoencoder", "text_encoder", *self.config.stage_names()[1:])
            return [name for name in names if not storage.exists(storage.join(self.output, name))]

        def work() -> None:
            from videogen.pipeline import assemble

            if missing():
                self.progress.say(f"assemble: the model still lacks {', '.join(missing())}")
            else:
                assemble(self.output, self.config)

        who = records.Identity(records.hash_of(self.config.model_dump(mode="json")), "")

        def done() -> bool:
            has_index = storage.exists(storage.join(self.output, "model_index.json"))
            return has_index and records.is_done(self.output, "assemble", who)

        def recorded() -> None:
            work()
            if not missing():
                records.write(self.output, "assemble", who)

        return Node("assemble", f"model_index.json in {self.output}", recorded, done, needs)


def train_autoencoder(config: CascadeConfig, data: str, output: str, progress: Progress | None = None) -> str:
    """Train the preset's image VAE on a corpus, with the text encoder beside it; return the VAE's folder.

    Raises:
        UserError: bad input.
        RuntimeError: it has failed; the message says why.
    """
    if progress is None:
        with Progress() as progress:
            return train_autoencoder(config, data, output, progress)
    cascade = Cascade(config, CascadeOptions(output, data, stages=("autoencoder",)), progress)
    cascade.nodes = [node for node in cascade.nodes if node.name in ("text", "autoencoder")]
    outcome = cascade.run()
    for step, cause in outcome.failed.items():
        raise RuntimeError(f"{step} failed: {cause}")
    return storage.join(cascade.output, "autoencoder")


def _chosen_stages(config: CascadeConfig, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the stages to train, in the order of the cascade."""
    known = config.trainable_stages()
    if names is None:
        return known
    chosen = set()
    for name in names:
        matches = [stage for stage in known if stage == name or (name == "upsample" and stage.startswith("upsample_"))]
        if not matches:
            raise UserError(f"There is no stage {name!r} to train.{nearest(name, known)} There are {', '.join(known)}.")
        chosen.update(matches)
    return tuple(stage for stage in known if stage in chosen)


def _tables(data: str, config: CascadeConfig) -> list[LatentsTable]:
    """Return the tables of latents at `data`; empty if it is a corpus of videos."""
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
    begun = [stage for stage in stages if stage.partition("_")[0] in _FROM_IMAGE_MODEL]
    parts = ["vae"] if "autoencoder" in begun and not config.autoencoder.pretrained else []
    parts += ["unet"] if set(begun) - {"autoencoder"} else []
    components.require_parts(init_from, parts, "--init-from")
    for stage in begun:
        require_can_start_from_image_model(stage, config)
    if not begun:
        raise UserError(
            f"--init-from has no effect on {', '.join(stages)}: leave it out, or train one of "
            f"{', '.join(_FROM_IMAGE_MODEL)} with --stages."
        )


def _resources(training: Any) -> Resources:
    workers = training.num_workers
    return Resources(workers * training.cpus_per_worker, workers if training.use_gpu else 0)
