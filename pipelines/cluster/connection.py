"""Connection to Ray: the cluster of `RAY_ADDRESS`, or a local one for the length of the job."""

import logging
import os
import secrets
import sys
from dataclasses import dataclass
from typing import Any

from videogen.errors import UserError
from videogen.startup import KEEP_FREED_MEMORY

logger = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 2 << 30
_START_ATTEMPTS = 3
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # What Ray's next release does; silences a warning in each worker.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray Train looks after its workers every two seconds; a tiny stage would wait for that at its start and its end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # The native part of Ray prints its warnings past Python's logging. One line of "error" stays in every encoding and
    # generation: Ray Data hands its actors their arguments by reference, and Ray warns of that (ray#53727). The next
    # level, "fatal", would keep real errors out of Ray's log files, and actors without restarts would cost a job.
    "RAY_BACKEND_LOG_LEVEL": "error",
    # Log messages of libraries are noise to the reader of a job.
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_ALONE = {
    # A local machine is never preempted: one process less per stage.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Without a dashboard nobody reads node metrics or polls log files; together they cost 2.5 % of a core.
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "60",
}
"""Of a local cluster."""


@dataclass(frozen=True)
class Resources:
    """Resources that a step occupies while it runs."""

    cpus: float = 0
    gpus: float = 0
    alone: bool = False
    """Whether the step needs the whole cluster."""


def connect() -> None:
    """Join the cluster of `RAY_ADDRESS` (a submitted job has it), or start a local one with all cores and GPUs.

    A local cluster binds to the loopback address and ends with this process. Has no effect when already connected.

    Raises:
        UserError: the cluster does not answer, or refuses the token.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS")
    if not address and "ray" not in sys.modules:
        _set_up_local()
    import ray

    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address:
        _join(address, quiet)
    else:
        _start_local(quiet)
    _quiet_data()


def _set_up_local() -> None:
    """Restrict the local cluster to this machine and this user. Ray reads these variables when it is imported."""
    for name, value in _ALONE.items():
        os.environ.setdefault(name, value)
    for name, value in KEEP_FREED_MEMORY.items():
        os.environ.setdefault(name, value)  # inherited by every worker
    # Ray's own switch for systems on which it stays on the loopback interface.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _start_local(options: dict[str, Any]) -> None:
    """Start Ray; retry if one of its processes misses its start-up deadline on a busy machine."""
    import ray

    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            ray.init(address="local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **options)
        except Exception:
            # ray.init() knows no narrower type for "timed out during startup".
            ray.shutdown()
            if attempt == _START_ATTEMPTS:
                raise
        else:
            return


def _join(address: str, options: dict[str, Any]) -> None:
    import ray

    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        if any(word in reason.lower() for word in ("token", "unauthenticated", "auth")):
            raise UserError(
                f"The Ray cluster at {address!r} refuses this process: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to "
                f"the cluster's token (`ray get-auth-token` prints it on the head node)."
            ) from error
        raise UserError(
            f"No Ray cluster answers at RAY_ADDRESS={address!r} ({reason[:200].rstrip('.')}): start one with "
            f"`ray start --head`, or unset RAY_ADDRESS to run on this machine alone."
        ) from error


def cpu_environment() -> dict[str, str]:
    """Return the environment variables that CPU workers with networks still need.

    Empty where the cluster's processes inherit them already: Ray starts new processes for each distinct environment.
    """
    return {name: value for name, value in KEEP_FREED_MEMORY.items() if name not in os.environ}


def may_grow() -> bool:
    """Return whether nodes may still join: a cluster that was joined may autoscale, a local one never does."""
    return bool(os.environ.get("RAY_ADDRESS"))


def say_if_waiting(what: str, needed: Resources, instead: str) -> None:
    """Log one line if the cluster lacks resources that a step needs now; Ray itself waits silently.

    Args:
        what: name of the step, at the beginning of the line.
        needed: resources of the whole step.
        instead: how to run without them.
    """
    now = total()
    if now.gpus < needed.gpus or now.cpus < needed.cpus:
        logger.warning(
            "%s waits for %g CPUs and %g GPUs; the cluster has %g and %g now, and the step "
            "does not start until nodes join (see `ray status`): %s.",
            *(what, needed.cpus, needed.gpus, now.cpus, now.gpus, instead),
        )


def total() -> Resources:
    """Return the resources of the connected cluster; zero without a connection."""
    import ray

    found = ray.cluster_resources() if ray.is_initialized() else {}
    return Resources(found.get("CPU", 0), found.get("GPU", 0))


def pool(name: str) -> dict[str, str]:
    """Return the label selector that keeps work in a pool of nodes.

    Empty where no node has the label `pool`, which cluster.yaml sets.
    """
    import ray

    labelled = any("pool" in node["Labels"] for node in ray.nodes() if node["Alive"])
    return {"pool": name} if labelled else {}


def _quiet_data() -> None:
    """Turn off Ray Data's own progress bars."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
