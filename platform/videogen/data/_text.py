"""Text that strangers wrote."""


def well_formed(text: str) -> str:
    """Return text without halves of characters, which JSON and tar may hold and UTF-8, hence Arrow, cannot."""
    return text.encode(errors="replace").decode()
