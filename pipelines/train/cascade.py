"""Training of the whole cascade: one graph from raw video or latents to a model folder.

    corpora -> text, autoencoder -> encode -> reference, base, upsample, interpolate, decode -> assemble

Independent steps run in parallel if the cluster has room; finished steps are skipped; a failed step stops only the
steps that depend on it. Calling it again continues.
"""

from pipelines import cluster
from pipelines.cluster.progress import Progress, shown
from pipelines.train import dag
from pipelines.train.dag import Outcome
from pipelines.train.inputs import CascadeInput, CascadeOptions
from pipelines.train.resources import require_room
from pipelines.train.steps import CascadeSteps
from videogen import storage
from videogen.stages import CascadeConfig

__all__ = ["Cascade", "CascadeOptions", "train_autoencoder"]


class Cascade:
    """Training graph of one configuration. Building it validates all input, without Ray.

    Raises:
        UserError: the first invalid input.
    """

    def __init__(self, config: CascadeConfig, options: CascadeOptions, progress: Progress) -> None:
        there = CascadeInput(config, options)
        self.config, self.stages, self.output = config, there.stages, there.output
        self.nodes = CascadeSteps(there, progress).nodes()
        self._progress = progress

    def run(self) -> Outcome:
        """Run the pending steps."""
        pending = dag.pending(self.nodes)
        if pending:
            cluster.connect()
        # Check all stages now instead of hours later.
        for stage in self.config.trainable_stages():
            if stage in pending:
                require_room(self.config, stage)
        return dag.run(
            self.nodes, cluster.total(), on_skip=lambda node: self._progress.say(f"{node.name}: done before")
        )


def train_autoencoder(config: CascadeConfig, data: str, output: str, progress: Progress | None = None) -> str:
    """Train the preset's image VAE on a corpus, with the text encoder beside it; return the VAE's folder.

    Raises:
        UserError: bad input.
        RuntimeError: training failed; the message names the cause.
    """
    with shown(progress) as progress:
        cascade = Cascade(config, CascadeOptions(output, data, stages=("autoencoder",)), progress)
        cascade.nodes = [node for node in cascade.nodes if node.name in ("text", "autoencoder")]
        outcome = cascade.run()
        for step, cause in outcome.failed.items():
            raise RuntimeError(f"{step} failed: {cause}")
        return storage.join(cascade.output, "autoencoder")
