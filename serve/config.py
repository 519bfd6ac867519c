"""Deployment configuration of the service; everything about the model comes from its folder."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from videogen.cli import suggest
from videogen.errors import UserError
from videogen.stages import CascadeConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageServeConfig(_Section):
    """Deployment of one stage. With the defaults, all stages of the `tiny` preset fit on two cores."""

    min_replicas: int = Field(default=1, ge=0, description="minimum number of replicas for autoscaling")
    max_replicas: int = Field(default=2, ge=1, description="maximum number of replicas for autoscaling")
    num_cpus: float = Field(default=0.2, gt=0, description="CPU cores reserved per replica, not a limit")
    num_gpus: float = Field(
        default=0, ge=0, description="GPUs reserved per replica; the stage runs on CUDA when above 0"
    )
    max_batch_size: int = Field(default=4, ge=1, description="jobs in one forward pass")
    batch_wait_s: float = Field(
        default=0.02, ge=0, description="seconds that the first job of a batch waits for further jobs"
    )
    max_stage_s: float = Field(default=600, gt=0, description="maximum seconds for a batch; sets the drain time")

    @model_validator(mode="after")
    def _replicas_in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} exceeds max_replicas {self.max_replicas}: raise the latter"
            )
        return self

    @property
    def max_ongoing_requests(self) -> int:
        """Requests of one running batch and one gathering batch; fewer would keep jobs from sharing a batch."""
        return 2 * self.max_batch_size


class ServeConfig(_Section):
    """Deployment of the whole service."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port to listen on")
    storage: str = Field(description="local folder of the job database and of the finished videos")
    max_queued_jobs: int = Field(default=64, ge=1, description="beyond this, new jobs are answered with 429")
    max_running_jobs: int = Field(default=8, ge=1, description="jobs that run at the same time")
    max_attempts: int = Field(default=3, ge=1, description="attempts at a job whose worker dies")
    default_stage: StageServeConfig = Field(
        default=StageServeConfig(), description="deployment of every stage that `stages` does not name"
    )
    stages: dict[str, StageServeConfig] = Field(
        default_factory=dict, description="deployments that override default_stage"
    )

    def stage(self, name: str) -> StageServeConfig:
        """Return the deployment settings of stage `name`."""
        return self.stages.get(name, self.default_stage)

    def require_fit(self, cascade: CascadeConfig) -> None:
        """Raise `UserError` if `stages` names a stage that the model does not have."""
        for name in self.stages:
            if name not in cascade.stage_names():
                raise UserError(
                    f"There is no stage {name!r} to set: the model's stages are {', '.join(cascade.stage_names())}."
                    f"{suggest(name, [*cascade.stage_names(), 'default_stage'])}"
                )
