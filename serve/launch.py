"""Starts and stops the service on Ray Serve."""

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
    """The HTTP face in a replica. There is exactly one: it owns the job database."""

    def __init__(self, runner: DeploymentHandle, model: Model, config: ServeConfig) -> None:
        self._service = VideoService.open(model, config, GraphEngine(runner))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application, once the replica has been constructed."""
        return build_api(self._service)


def build_app(plan: Plan) -> Application:
    """Return the whole application: API, runner, and one deployment a stage."""
    api = ray_serve.deployment(
        ApiReplica,
        name="api",
        num_replicas=1,
        max_ongoing_requests=256,
        # The database and the videos are on the head node's disk, and a cluster's head may have no CPUs to reserve.
        ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        graceful_shutdown_timeout_s=10,
    )
    runner = runner_deployment(plan.model, plan.cascade, plan.config)
    return api.bind(runner, describe_model(plan.cascade), plan.config)


class Service:
    """What this process serves. It ends only what it began itself: on a shared cluster, the rest is other people's."""

    def __init__(self, *, shared: bool) -> None:
        """Begin nothing yet.

        Args:
            shared: the Ray cluster goes on after this process, and may gain nodes while the service waits for them.
        """
        self._shared = shared
        self._began_serve = False
        self._began_app = False

    def start(self, plan: Plan) -> None:
        """Serve on the Ray that this process is connected to; return when requests are answered."""
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if not self._shared:
            # On a shared cluster pools may start at zero nodes and follow what the replicas ask for.
            _require_room(plan)
        _require_no_other_service()
        # Each is noted before the call: one that is interrupted has begun as well.
        self._began_serve = not _serve_runs()
        ray_serve.start(http_options=HTTPOptions(host=plan.config.host, port=plan.config.port))
        self._began_app = True
        try:
            ray_serve.run(build_app(plan), name=APP_NAME, route_prefix="/")
        except RuntimeError as error:
            raise UserError(f"The model {plan.model!r} cannot be served: {_why_not(error)}.") from error

    def stop(self) -> None:
        """Stop what `start` began. Jobs stay in the storage folder, and go on when it is served again."""
        if self._began_app and APP_NAME in ray_serve.status().applications:
            ray_serve.delete(APP_NAME)
        # A Serve without applications would keep its address, and the next start may want another. On a Ray that ends
        # with this process, ending it would only be one more thing to wait for.
        if self._shared and self._began_serve and not ray_serve.status().applications:
            ray_serve.shutdown()
        self._began_app = self._began_serve = False


def missing_resources(plan: Plan) -> str:
    """Return what the replicas need beyond what Ray has, e.g. "2 GPUs (Ray has 0)", or an empty string."""
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
    """Raise `UserError` when the replicas cannot all be placed: Serve would wait for more machines, for ever."""
    if missing := missing_resources(plan):
        raise UserError(
            f"The service needs {missing}: lower num_cpus or num_gpus, e.g. --set default_stage.num_cpus=0.1."
        )


def _require_no_other_service() -> None:
    """Raise `UserError` when the cluster runs Serve already: its proxy keeps the address that it was started with."""
    running = ", ".join(ray_serve.status().applications)
    if running:
        raise UserError(f"This Ray cluster serves {running} already: stop that with `serve shutdown` first.")


def _serve_runs() -> bool:
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _why_not(error: RuntimeError) -> str:
    """Return what made a replica fail. Ray Serve's own error names the deployment, but not the cause."""
    application = ray_serve.status().applications.get(APP_NAME)
    for name, deployment in application.deployments.items() if application else ():
        causes = [line.strip() for line in deployment.message.splitlines() if "Error" in line]
        if causes:
            return f"{name} does not start, {causes[-1].rstrip('.')}"
    return str(error).rstrip(".")
