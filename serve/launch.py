"""Starts and stops the service on Ray Serve."""

import logging

import ray
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from serve.api import VideoService, build_api
from serve.config import ServeConfig
from serve.deployments import DRAIN_POLL_S
from serve.graph import GraphEngine, runner_deployment
from serve.preflight import Plan
from serve.protocol import Model
from serve.requests import describe_model
from videogen.errors import UserError

APP_NAME = "videogen"
_SMALL_CPUS = 0.1


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
        # The database and the videos are on the head node's disk.
        ray_actor_options={"num_cpus": _SMALL_CPUS, "resources": {"node:__internal_head__": 0.001}},
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        graceful_shutdown_timeout_s=10,
    )
    runner = runner_deployment(plan.model, plan.cascade, plan.config)
    return api.bind(runner, describe_model(plan.cascade), plan.config)


def start(plan: Plan) -> None:
    """Serve on the Ray that this process is connected to; return when requests are answered."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    _require_cpus(plan)
    ray_serve.start(http_options=HTTPOptions(host=plan.config.host, port=plan.config.port))
    _require_no_other_service()
    try:
        ray_serve.run(build_app(plan), name=APP_NAME, route_prefix="/")
    except RuntimeError as error:
        raise UserError(f"The model {plan.model!r} cannot be served: {_why_not(error)}.") from error


def stop(*, cluster_goes_on: bool = True) -> None:
    """Stop the service. Jobs stay in the storage folder, and go on when it is served again.

    Args:
        cluster_goes_on: also end Serve itself. On a Ray that ends with this process that would only be one more
            thing to wait for, with complaints about a controller that is gone.
    """
    if cluster_goes_on:
        ray_serve.shutdown()
    elif APP_NAME in ray_serve.status().applications:
        ray_serve.delete(APP_NAME)


def _require_cpus(plan: Plan) -> None:
    """Raise `UserError` when the replicas cannot all be placed: Serve would wait for more machines, for ever."""
    stages = [plan.config.stage(name) for name in plan.cascade.stage_names()]
    needed = sum(stage.min_replicas * stage.num_cpus for stage in stages) + 2 * _SMALL_CPUS
    available = ray.cluster_resources().get("CPU", 0)
    if needed > available:
        raise UserError(
            f"The service needs {needed:g} CPUs, but Ray has {available:g}: lower num_cpus of the stages, or add nodes."
        )


def _require_no_other_service() -> None:
    """Raise `UserError` when the cluster runs Serve already: its proxy keeps the address that it was started with."""
    running = ", ".join(ray_serve.status().applications)
    if running:
        raise UserError(f"This Ray cluster serves {running} already: stop that with `serve shutdown` first.")


def _why_not(error: RuntimeError) -> str:
    """Return what made a replica fail. Ray Serve's own error names the deployment, but not the cause."""
    application = ray_serve.status().applications.get(APP_NAME)
    for name, deployment in application.deployments.items() if application else ():
        causes = [line.strip() for line in deployment.message.splitlines() if "Error" in line]
        if causes:
            return f"{name} does not start, {causes[-1].rstrip('.')}"
    return str(error).rstrip(".")
