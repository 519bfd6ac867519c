"""Starts and stops the service on Ray Serve."""

import socket
from pathlib import Path

import ray
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from serve.api import VideoService, build_api
from serve.config import ServeConfig
from serve.graph import GraphEngine, runner_deployment
from serve.protocol import Model
from serve.requests import describe_model
from videogen import storage
from videogen.config import CascadeConfig
from videogen.errors import UserError
from videogen.stages import load_cascade_config

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


def build_app(model: str, cascade: CascadeConfig, config: ServeConfig) -> Application:
    """Return the whole application: API, runner, and one deployment a stage."""
    api = ray_serve.deployment(
        ApiReplica,
        name="api",
        num_replicas=1,
        max_ongoing_requests=256,
        # The database and the videos are on the head node's disk.
        ray_actor_options={"num_cpus": _SMALL_CPUS, "resources": {"node:__internal_head__": 0.001}},
        graceful_shutdown_timeout_s=10,
    )
    return api.bind(runner_deployment(model, cascade, config), describe_model(cascade), config)


def start(model: str, config: ServeConfig) -> str:
    """Serve the model at the URI `model`, on the running Ray or on one started here; return the service's URL.

    Everything that can be wrong with the arguments is a `UserError`, raised before Ray is started.
    """
    model = storage.absolute(model)
    storage.require_readable(model, "The model")
    with storage.local_copy(model) as folder:
        cascade = load_cascade_config(str(folder))
    config = config.model_copy(update={"storage": _local_folder(config.storage)})
    config.require_fit(cascade)
    _require_free(config.host, config.port)
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    _require_cpus(cascade, config)
    ray_serve.start(http_options=HTTPOptions(host=config.host, port=config.port))
    ray_serve.run(build_app(model, cascade, config), name=APP_NAME, route_prefix="/")
    return f"http://{config.host}:{config.port}"


def stop() -> None:
    """Stop the service. Jobs stay in the storage folder, and go on when it is served again."""
    ray_serve.shutdown()


def _local_folder(uri: str) -> str:
    if storage.is_remote(uri):
        raise UserError(f"--storage {uri!r} must be a local folder: the job database cannot live on S3.")
    storage.require_writable(uri, "--storage")
    return str(Path(storage.absolute(uri)))


def _require_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UserError(
            f"Cannot listen on {host}:{port} ({error.strerror or error}): choose another --port."
        ) from error


def _require_cpus(cascade: CascadeConfig, config: ServeConfig) -> None:
    """Raise `UserError` when the replicas cannot all be placed: Serve would wait for more machines, for ever."""
    stages = [config.stage(name) for name in cascade.stage_names()]
    needed = sum(stage.min_replicas * stage.num_cpus for stage in stages) + 2 * _SMALL_CPUS
    available = ray.cluster_resources().get("CPU", 0)
    if needed > available:
        raise UserError(
            f"The service needs {needed:g} CPUs, but Ray has {available:g}: lower num_cpus of the stages, or add nodes."
        )
