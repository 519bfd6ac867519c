"""Start and stop of the service on Ray Serve."""

import logging

import ray
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve import Application
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from serve.api import VideoService, build_api
from serve.config import ServeConfig
from serve.deployments import DRAIN_POLL_S
from serve.graph import RUNNER_CPUS, GraphEngine, runner_deployment
from serve.preflight import Plan
from serve.protocol import Model
from serve.requests import describe_model
from videogen.errors import UserError

APP_NAME = "videogen"


@ray_serve.ingress()
class ApiReplica:
    """Replica of the HTTP API; there is exactly one, because it owns the job database."""

    def __init__(self, runner: DeploymentHandle, model: Model, config: ServeConfig) -> None:
        self._service = VideoService.open(model, config, GraphEngine(runner))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application, once the replica has been constructed."""
        return build_api(self._service)


def build_app(plan: Plan) -> Application:
    """Return the application: API, runner, and one deployment per stage."""
    api = ray_serve.deployment(
        ApiReplica,
        name="api",
        num_replicas=1,
        max_ongoing_requests=256,
        # Placed on the head node, whose disk has the database and the videos; a head node may have no CPUs to reserve.
        ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        graceful_shutdown_timeout_s=10,
    )
    runner = runner_deployment(plan.model, plan.cascade, plan.config)
    return api.bind(runner, describe_model(plan.cascade), plan.config)


class Service:
    """Lifecycle of the service in this process. It stops only what it started: a shared cluster has other users."""

    def __init__(self, *, shared: bool) -> None:
        """Initialise without starting anything.

        Args:
            shared: whether the Ray cluster outlives this process; it may gain nodes while the service waits for them.
        """
        self._shared = shared
        self._started_serve = False
        self._started_app = False

    def start(self, plan: Plan) -> None:
        """Deploy on the connected Ray cluster; return when the service answers requests."""
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if not self._shared:
            # A shared cluster may autoscale from zero nodes to the resources that replicas request.
            _require_room(plan)
        _require_no_other_service()
        # Set before each call: an interrupted call has started something as well.
        self._started_serve = not _serve_runs()
        ray_serve.start(http_options=HTTPOptions(host=plan.config.host, port=plan.config.port))
        self._started_app = True
        try:
            ray_serve.run(build_app(plan), name=APP_NAME, route_prefix="/")
        except RuntimeError as error:
            raise UserError(f"The model {plan.model!r} cannot be served: {_failure_reason(error)}.") from error

    def stop(self) -> None:
        """Stop what `start` started. Jobs stay in the storage folder and continue when it is served again."""
        if self._started_app and APP_NAME in ray_serve.status().applications:
            ray_serve.delete(APP_NAME)
        # An idle Serve would keep its address, but the next start may use another. A Ray cluster that ends with this
        # process ends Serve too.
        if self._shared and self._started_serve and not ray_serve.status().applications:
            ray_serve.shutdown()
        self._started_app = self._started_serve = False


def missing_resources(plan: Plan) -> str:
    """Return the resources that replicas need and Ray lacks, e.g. "2 GPUs (Ray has 0)", or an empty string."""
    stages = [plan.config.stage(name) for name in plan.cascade.stage_names()]
    needed = {
        "CPU": sum(stage.min_replicas * stage.num_cpus for stage in stages) + RUNNER_CPUS,
        "GPU": sum(stage.min_replicas * stage.num_gpus for stage in stages),
    }
    available = ray.cluster_resources()
    return " and ".join(
        f"{amount:g} {kind}s (Ray has {available.get(kind, 0):g})"
        for kind, amount in needed.items()
        if amount > available.get(kind, 0)
    )


def _require_room(plan: Plan) -> None:
    """Raise `UserError` if the replicas cannot all be placed: Serve would wait for more machines forever."""
    if missing := missing_resources(plan):
        raise UserError(
            f"The service needs {missing}: lower num_cpus or num_gpus, e.g. --set default_stage.num_cpus=0.1."
        )


def _require_no_other_service() -> None:
    """Raise `UserError` if the cluster already runs Serve: its proxy keeps the address of its first start."""
    running = ", ".join(ray_serve.status().applications)
    if running:
        raise UserError(f"This Ray cluster serves {running} already: stop that with `serve shutdown` first.")


def _serve_runs() -> bool:
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _failure_reason(error: RuntimeError) -> str:
    """Return why a replica failed; Ray Serve's own error names the deployment, but not the cause."""
    application = ray_serve.status().applications.get(APP_NAME)
    for name, deployment in application.deployments.items() if application else ():
        causes = [line.strip() for line in deployment.message.splitlines() if "Error" in line]
        if causes:
            return f"{name} does not start, {causes[-1].rstrip('.')}"
    return str(error).rstrip(".")
