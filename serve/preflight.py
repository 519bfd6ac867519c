"""Preflight checks of `python -m serve`, before Ray is started."""

import socket
from dataclasses import dataclass

from serve.config import ServeConfig
from videogen import storage
from videogen.errors import UserError
from videogen.stages import CascadeConfig, load_cascade_config


@dataclass(frozen=True)
class Plan:
    """Checked plan of a service: the model's URI, its cascade, and the deployment configuration."""

    model: str
    cascade: CascadeConfig
    config: ServeConfig

    @property
    def url(self) -> str:
        """Address of the service."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self.config.port}"


def prepare(model: str, config: ServeConfig) -> Plan:
    """Check the arguments and return the plan, with absolute paths."""
    model = storage.readable_uri(model, "The model")
    folder = _local_folder(config.storage)
    _require_free(config.host, config.port)
    cascade = load_cascade_config(model)
    config = config.model_copy(update={"storage": folder})
    config.require_fit(cascade)
    return Plan(model, cascade, config)


def _local_folder(uri: str) -> str:
    if storage.is_remote(uri):
        raise UserError(f"--storage {uri!r} must be a local folder: the job database cannot live on S3.")
    return storage.writable_uri(uri, "--storage")


def _require_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot listen on {host}:{port} ({reason}): choose another --port or --host.") from error
