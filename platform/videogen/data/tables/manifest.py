"""A table's manifest, checked key by key before it is trusted: it may have been cut off, or edited by hand."""

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from videogen.errors import UserError

_Number = Annotated[int, pydantic.Field(ge=0)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, protected_namespaces=())


class _Counts(_Section):
    planned: _Number
    ok: _Number
    filtered: _Number
    failed: _Number
    rows: _Number


class _Shard(_Section):
    name: str
    rows: _Number
    bytes: _Number
    rows_per_group: Annotated[int, pydantic.Field(ge=1)]


class _Index(_Section):
    files: list[str]
    rows: _Number


class _Table(_Section):
    """What all tables have; of the kinds of table, what jobs read of an earlier run's."""

    identity: str
    counts: _Counts
    shards: list[_Shard]
    index: _Index


class _ClipSettings(_Section):
    num_frames: Annotated[int, pydantic.Field(ge=1)]
    fps: Annotated[float, pydantic.Field(gt=0)]
    scores: list[str]


class _Clips(_Table):
    spec: _ClipSettings
    scores: list[str]
    policy: dict[str, str]
    has_captions: bool


class _Latents(_Table):
    encoder_fingerprint: str
    latent_sizes: list[int]
    clip: dict[str, Any]
    has_captions: bool


_KINDS: Mapping[str, type[_Table]] = {"clips": _Clips, "latents": _Latents}


def require_whole(manifest: Mapping[str, Any], uri: str) -> None:
    """Refuse a manifest of this release in which a key is missing, or holds something else than was written.

    Args:
        manifest: of a kind and a schema version that this release reads.
        uri: of its file.

    Raises:
        UserError: in one sentence.
    """
    try:
        _KINDS[manifest["kind"]].model_validate(dict(manifest))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key, reason = ".".join(str(part) for part in first["loc"]), first["msg"].rstrip(".")
        raise UserError(
            f"{uri!r} is damaged (of {key!r}: {reason}): put back a whole one, or remove it and run the job that wrote "
            f"it again, which does nothing twice."
        ) from error
