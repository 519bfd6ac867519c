"""Text that strangers wrote."""

from collections.abc import Sequence

_NAMES_AT_MOST = 20
_LENGTH_AT_MOST = 200


def well_formed(text: str) -> str:
    """Return text without halves of characters, which JSON and tar may hold and UTF-8, hence Arrow, cannot."""
    return text.encode(errors="replace").decode()


def one_line(text: str, length: int = _LENGTH_AT_MOST) -> str:
    """Return text as a sentence can quote it: one line, nothing that a terminal obeys, not endless."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return shown if len(shown) <= length else f"{shown[:length]}..."


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence can list them, the first few of many."""
    shown = ", ".join(one_line(name, 60) for name in names[:_NAMES_AT_MOST])
    left = len(names) - _NAMES_AT_MOST
    return f"{shown} and {left} more" if left > 0 else shown
