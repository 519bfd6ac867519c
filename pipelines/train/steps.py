"""Steps of the training graph: work, dependencies, outputs and completion of each."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from pipelines.cluster.connection import Resources
from pipelines.cluster.progress import Progress
from pipelines.encode.corpus import Corpus
from pipelines.encode.pipeline import encode
from pipelines.encode.plan import EncodeOptions, is_of_other, is_of_other_release, prepare
from pipelines.runner import step_records
from pipelines.runner.run import RunOptions
from pipelines.train.dag import Node
from pipelines.train.demo_corpus import make_demonstration_corpus
from pipelines.train.identity import identity
from pipelines.train.inputs import CascadeInput, Encoding
from pipelines.train.stage import TrainProgress, train_stage
from videogen import storage
from videogen.data.datasets.clips import ClipSpec
from videogen.data.datasets.latents_table import encoder_fingerprint
from videogen.data.synthetic import CorpusSize
from videogen.data.tables import MANIFEST_NAME
from videogen.models.pretrained import copy_component
from videogen.stages import dataset_kind, untrained

_ANEW = EncodeOptions(run=RunOptions(replace=True))


class CascadeSteps:
    """Builder of the graph's nodes for validated input."""

    def __init__(self, there: CascadeInput, progress: Progress) -> None:
        self._there, self._progress = there, progress
        self._config, self._output = there.config, there.output

    def nodes(self) -> list[Node]:
        """Return the nodes in topological order."""
        nodes = [self._corpora_node()] if self._there.makes_corpora else []
        nodes.append(self._text_node())
        nodes.append(self._autoencoder_node())
        if self._there.encodes:
            nodes += [self._encode_node(step, encoding) for step, encoding in self._there.encodings.items()]
            if self._config.reference.pretrained:
                nodes.append(self._reference_node())
            if "interpolate" not in self._config.trainable_stages():
                nodes.append(self._identity_node())
            nodes += [self._training_node(stage) for stage in self._there.stages if dataset_kind(stage) != "raw"]
        nodes.append(self._assemble_node(tuple(node.name for node in nodes)))
        return nodes

    def _node(
        self,
        name: str,
        what: str,
        work: Callable[[], Any],
        who: Callable[[], step_records.Identity],
        makes: Sequence[str],
        needs: Sequence[str] = (),
    ) -> Node:
        """Return a node whose success is recorded; `makes` are the URIs that exist afterwards."""

        def done() -> bool:
            return all(map(storage.exists, makes)) and step_records.is_done(self._output, name, who())

        def recorded() -> None:
            # Before the work: input that arrives while it runs may not be included.
            identity_before = who()
            work()
            step_records.write(self._output, name, identity_before)

        return Node(name, what, recorded, done, tuple(needs))

    def _corpora_node(self) -> Node:
        config = max(self._config.of_each_length(), key=lambda one: one.num_frames)
        settings: list[Any] = [config.num_output_frames, config.output_fps, config.resolution]
        if self._there.corpus_size != CorpusSize():
            settings.append(asdict(self._there.corpus_size))

        def work() -> None:
            make_demonstration_corpus(self._there.data, config, self._progress, self._there.corpus_size)

        def who() -> step_records.Identity:
            return step_records.Identity(step_records.hash_of(settings), self._there.data)

        makes = list(self._there.corpora.values())
        return self._node("corpora", f"demonstration videos into {self._there.data}", work, who, makes)

    def _text_node(self) -> Node:
        config, source = self._config, self._there.encoder_source
        has_text = source is not None and all(
            storage.exists(storage.join(source, name)) for name in untrained.TEXT_PARTS
        )
        origin = source if has_text else config.text.pretrained

        def work() -> None:
            untrained.write_text(config, self._output, source if has_text else None)

        settings = [config.text.model_dump(mode="json"), config.diffusion.model_dump(mode="json"), config.seed]
        who = step_records.Identity(step_records.hash_of(settings), str(origin))
        what = f"frozen text encoder {f'from {origin}' if origin else 'of the preset'}"
        makes = [storage.join(self._output, name) for name in (*untrained.TEXT_PARTS, "scheduler")]
        return self._node("text", what, work, lambda: who, makes)

    def _autoencoder_node(self) -> Node:
        source = self._there.encoder_source
        target = storage.join(self._output, "autoencoder")
        if source is None and "autoencoder" in self._config.trainable_stages():
            return self._training_node("autoencoder")
        off_the_shelf = self._config.autoencoder.pretrained
        folder, name = (source, "autoencoder") if source else (str(off_the_shelf), "vae")
        who = step_records.Identity(step_records.hash_of([name]), folder)

        def work() -> None:
            if not (source and storage.join(source, name) == target):
                copy_component(folder, name, target)

        return self._node("autoencoder", f"image VAE from {folder}", work, lambda: who, [target])

    def _encode_node(self, step: str, encoding: Encoding) -> Node:
        autoencoder = storage.join(self._output, "autoencoder")
        corpus, table, config = encoding.corpus, encoding.table, encoding.config
        settings = [list(config.latent_sizes), ClipSpec.of(config).as_dict()]

        def who() -> step_records.Identity:
            data = [Corpus(corpus).identity(), encoder_fingerprint(autoencoder), table]
            return step_records.Identity(step_records.hash_of(settings), step_records.hash_of(data))

        def work() -> None:
            # encode() refuses latents of another autoencoder, preset or release.
            is_ours = step_records.read(self._output, step) is not None
            if is_ours and (
                is_of_other_release(table) or is_of_other(prepare(corpus, table, config, autoencoder, options=_ANEW))
            ):
                storage.remove(table)
            encode(corpus, table, config, autoencoder, progress=self._progress)

        needs = ["text", "autoencoder", *(["corpora"] if self._there.makes_corpora else [])]
        node = self._node(
            step,
            f"{corpus} to latents of {config.num_output_frames} frames",
            work,
            who,
            [storage.join(table, MANIFEST_NAME)],
            needs,
        )
        return replace(node, resources=Resources(alone=True))

    def _reference_node(self) -> Node:
        source = str(self._config.reference.pretrained)
        who = step_records.Identity(step_records.hash_of(["reference"]), source)

        def work() -> None:
            untrained.write_reference(source, self._output)

        makes = [storage.join(self._output, "reference")]
        return self._node("reference", f"text-to-image model from {source}", work, lambda: who, makes)

    def _identity_node(self) -> Node:
        """Write an untrained network: without frames between key frames there is nothing to learn."""
        config = self._config

        def work() -> None:
            untrained.write_fresh(config, "interpolate", self._output)

        settings = [config.interpolate.model.model_dump(mode="json"), config.autoencoder.model.latent_channels]
        who = step_records.Identity(step_records.hash_of([*settings, config.seed]), "")
        makes = [storage.join(self._output, "interpolate")]
        return self._node("interpolate", "nothing to train: temporal_factor is 1", work, lambda: who, makes)

    def _training_node(self, stage: str) -> Node:
        training = self._config.training_of(stage)
        init_from = self._there.init_from(stage)

        def uris() -> list[str]:
            return list(self._there.corpora.values()) if dataset_kind(stage) == "raw" else self._there.table_uris

        def done() -> bool:
            if not storage.exists(storage.join(self._output, stage)):
                return False
            return step_records.is_done(self._output, stage, identity(self._config, stage, uris(), init_from))

        def work() -> None:
            with self._progress.task(stage, total=training.steps, unit="steps") as task:
                task.update(detail="starting its workers")

                def show(now: TrainProgress) -> None:
                    task.update(completed=now.step, detail=f"loss {now.loss:.3g}")

                train_stage(self._config, stage, uris(), self._output, init_from, show)
                task.update(completed=training.steps)

        if dataset_kind(stage) == "raw":
            needs = ["corpora"] if self._there.makes_corpora else []
        else:
            needs = ["text", "autoencoder", *self._there.encodings]
        what = f"{training.steps} steps of {training.batch_size}" + (f" from {init_from}" if init_from else "")
        return Node(stage, what, work, done, tuple(needs), _resources(training))

    def _assemble_node(self, needs: tuple[str, ...]) -> Node:
        def missing() -> list[str]:
            names = ("autoencoder", "text_encoder", *self._config.stage_names()[1:])
            return [name for name in names if not storage.exists(storage.join(self._output, name))]

        def work() -> None:
            from videogen.pipeline import assemble

            if missing():
                self._progress.say(f"assemble: the model still lacks {', '.join(missing())}")
            else:
                assemble(self._output, self._config)

        who = step_records.Identity(step_records.hash_of(self._config.model_dump(mode="json")), "")

        def done() -> bool:
            has_index = storage.exists(storage.join(self._output, "model_index.json"))
            return has_index and step_records.is_done(self._output, "assemble", who)

        def recorded() -> None:
            work()
            if not missing():
                step_records.write(self._output, "assemble", who)

        return Node("assemble", f"model_index.json in {self._output}", recorded, done, needs)


def _resources(training: Any) -> Resources:
    workers = training.num_workers
    return Resources(workers * training.cpus_per_worker, workers if training.use_gpu else 0)
