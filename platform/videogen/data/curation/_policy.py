"""Curation policy: named rules over the columns of a clips table that decide which clips are kept.

Scores are stored for every clip; the policy is applied to the finished table, so changing it decodes nothing.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from videogen.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_NAMED = re.compile(r"(?P<name>[A-Za-z_][\w-]*)\s*=(?!=)\s*(?P<expression>[A-Za-z_(\"].*)", re.DOTALL)
_COMPARES = re.compile(r"[<>=]|\b(not|is|in|like|ilike|between|starts_with|contains)\b|\(", re.IGNORECASE)
_STRING = re.compile(r"'[^']*'")


@dataclass(frozen=True)
class Policy:
    """Rules that a clip must all satisfy to be kept. NULL does not satisfy a rule."""

    rules: Mapping[str, str]
    """SQL expressions (DuckDB) by name, in order of application; true for clips to keep."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Parse the rules of a command line.

        Args:
            texts: one rule each: an expression such as "motion >= 0.3", which is its own name, or "name=expression",
                such as "lively=motion >= 0.3".

        Raises:
            UserError: an empty rule, or two rules of one name.
        """
        rules: dict[str, str] = {}
        for text in texts:
            name, expression = _split(text)
            if not expression:
                raise UserError(f"Rule {text!r} is empty: write a condition such as 'motion >= 0.3'.")
            if name in rules:
                raise UserError(f"Two rules are named {name!r}: give one of them another name, as in 'name=condition'.")
            rules[name] = expression
        return cls(rules)

    def check(self, schema: "pa.Schema") -> None:
        """Check all rules against a schema.

        Args:
            schema: columns of the clips table.

        Raises:
            UserError: an invalid expression, an unknown column, or a rule named like a column.
        """
        from videogen.data.tables import check_expression

        for name, expression in self.rules.items():
            is_own_name = name == " ".join(expression.split())
            # "width=height" may be meant as a comparison, so it must not silently become a named rule.
            if name in schema.names and not is_own_name:
                raise UserError(
                    f"Rule '{name}={expression}' is named like the column {name!r}: choose another name, or write '==' "
                    f"if a comparison is meant."
                )
            what = "Rule" if is_own_name else f"Rule {name!r}:"
            check_expression(expression, schema, what)


def _split(text: str) -> tuple[str, str]:
    """Return a rule's name and expression."""
    stripped = text.strip()
    named = _NAMED.fullmatch(stripped)
    # In "codec='h264'" and "has_audio=true" the part after "=" is a value, not a condition, so they are comparisons.
    if named and _COMPARES.search(_STRING.sub("", named["expression"])):
        return named["name"], named["expression"]
    return " ".join(stripped.split()), stripped
