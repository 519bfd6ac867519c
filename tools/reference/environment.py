"""Reference of the environment: make targets, exit statuses and environment variables."""

import re
from pathlib import Path

from tools.reference.markdown import code, escape, page, table
from videogen import cli

EXIT_STATUSES = {
    0: "The job has done all that was asked for. Rows that failed are in its errors table.",
    cli.EXIT_FAILED: "A fault of the platform or of the machine, with a traceback; or `generate` has failed prompts.",
    cli.EXIT_BAD_INPUT: "The input, an option or the environment is wrong; the message says what to do.",
    cli.EXIT_INTERRUPTED: "Interrupted by Ctrl-C. The same command continues.",
}

VARIABLES = {
    "AWS_ACCESS_KEY_ID": "access key of S3",
    "AWS_SECRET_ACCESS_KEY": "secret key of S3",
    "AWS_SESSION_TOKEN": "session token of temporary credentials of S3",
    "AWS_ENDPOINT_URL": "address of a storage other than AWS that speaks S3",
    "AWS_ENDPOINT_URL_S3": "the same; goes before `AWS_ENDPOINT_URL`",
    "RAY_ADDRESS": "Ray cluster to join; unset: a local cluster for this process, with all cores and GPUs",
    "RAY_AUTH_MODE": "authentication of the Ray cluster; default `token`",
    "RAY_AUTH_TOKEN": "token of the Ray cluster; a local cluster gets a random one",
    "TMPDIR": "folder of temporary files: spilled databases, models copied from S3",
    "MALLOC_ARENA_MAX": "set to 1 for workers that run networks on CPUs, unless it is set; see `videogen.startup`",
    "MALLOC_MMAP_THRESHOLD_": "set to 1 GiB for the same workers, unless it is set",
    "MALLOC_TRIM_THRESHOLD_": "set to 8 GiB for the same workers, unless it is set",
}
"""Variables that a user may set. What Ray, torch and DeepSpeed read beside them is in their own documentation."""

MAKE_VARIABLES = {
    "ARGS": "further arguments of pytest or of the job",
    "MODEL": "model that `make serve` serves: a folder or an `s3://` URI",
    "PYTHON": "interpreter that `.venv` is made from; must be Python 3.11",
    "TORCH_INDEX": "further package index for torch, e.g. `https://download.pytorch.org/whl/cpu`",
    "VENV": "folder of the environment",
}


def render(root: Path) -> str:
    """Return the page."""
    makefile = (root / "Makefile").read_text()
    defaults = dict(re.findall(r"^([A-Z_]+) *\?= *(.*)$", makefile, re.MULTILINE))
    targets = re.findall(r"^([a-z-]+):.*## (.*)$", makefile, re.MULTILINE)
    assert set(defaults) == set(MAKE_VARIABLES)
    return page(
        "Commands and environment",
        "## Make targets\n\nEvery target installs what it needs into `.venv` first.",
        table(("command", "effect"), [(code(f"make {name}"), escape(text)) for name, text in targets]),
        'Variables, e.g. `make test ARGS="-k storage"`:',
        table(
            ("variable", "default", "meaning"),
            [(code(name), code(defaults[name]), escape(MAKE_VARIABLES[name])) for name in sorted(defaults)],
        ),
        "## Exit statuses\n\nAll jobs and the service have the same.",
        table(("status", "meaning"), [(code(status), escape(text)) for status, text in EXIT_STATUSES.items()]),
        "## Environment variables",
        table(("variable", "meaning"), [(code(name), escape(text)) for name, text in VARIABLES.items()]),
    )
