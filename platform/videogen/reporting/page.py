"""HTML page engine that all reports share: templates, filters, inline media, headline tiles.

Every page is one file: style, charts and pictures are inside, and its Content-Security-Policy forbids the network. To
add a report: write `templates/NAME.html.j2`, which extends `base.html.j2`, and call `render_page`.
"""

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from videogen.reporting import formatting

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Tile:
    """Headline number."""

    name: str
    value: str
    note: str
    unit: str = ""
    fill: float | None = None
    """Length of the bar in percent; None for no bar."""
    mark: float | None = None
    """Position of the target on the bar, in percent."""
    mark_label: str = ""
    is_met: bool | None = None
    """Whether the target is reached; None without a target."""


def render_page(template: str, **values: object) -> str:
    """Return a page from a template of this package; values are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        # Style sheets and scripts are included verbatim.
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": formatting.count,
        "short": formatting.short,
        "in_words": formatting.in_words,
        "duration": formatting.duration,
        "column_label": formatting.column_label,
    }
    environment.globals["percent"] = formatting.percent
    made_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(made_at=made_at, **values)


def data_uri(content: bytes, mime: str) -> str:
    """Return content as a `data:` URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def made_from(page: str) -> str | None:
    """Return the fingerprint of the sources that a page was made from; None if it has none."""
    found = re.search(r'<meta name="made-from" content="(\w*)">', page)
    return found[1] if found else None
