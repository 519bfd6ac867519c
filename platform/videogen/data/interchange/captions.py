"""What counts as the caption of a video, in data sets of others."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

CAPTION_NAMES = ("caption", "text", "prompt")
"""Where a caption is looked for, unless the caller says where it is."""


class Caption(NamedTuple):
    """One caption."""

    text: str | None
    """In one line; None if there is none."""
    num_given: int
    """Captions to choose from; the first one is taken."""


def caption_of(value: Any) -> Caption:
    """Return the caption in a value: a text, or a list of texts, of which the first is taken.

    Raises:
        ValueError: it is something else.
    """
    values = value if isinstance(value, list) else [value]
    if any(not isinstance(one, str | None) for one in values):
        raise ValueError("it is neither text nor a list of texts")
    lines = [line for one in values if (line := " ".join((one or "").split()))]
    return Caption(lines[0] if lines else None, len(lines))


def holds_captions(kind: "pa.DataType") -> bool:
    """Tell whether a column of this type holds texts or lists of texts."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_text(kind.value_type)
    return _is_text(kind)


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    # A column of nothing but null has a type of its own.
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)
