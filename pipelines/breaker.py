"""The breaker: a run that goes wrong is stopped early, in words, instead of filling a table with failures."""

import re
from collections import Counter
from collections.abc import Iterable

from videogen.data.tables.records import FAILED, Outcome
from videogen.errors import UserError

_CAUSES = (
    (
        r"credential|access ?denied|forbidden|signature|token|403",
        "wrong or expired credentials: check the AWS variables",
    ),
    (r"no such file|not exist|not found|404", "the files are not where the input says: check its paths"),
    (r"decoder not found|codec|av1|unsupported", "a codec that the decoder lacks: try --decoder pyav"),
    (r"no space|disk", "a full disk: make room on the workers"),
    (r"memory", "too little memory for these videos: raise the limit, or run fewer decoders a node"),
    (r"time|timed out|stopped after|connect|endpoint|reset", "a slow or unreachable storage: check the network"),
)


class FailureBreaker:
    """Counts how items end, and raises when too large a share of them fails.

    Args:
        max_rate: share of failed items, 0..1, that is still borne; 1 bears all.
        min_items: nothing is judged before so many items.
    """

    def __init__(self, max_rate: float = 0.5, min_items: int = 100) -> None:
        self._max_rate, self._min_items = max_rate, min_items
        self._items = self._failed = 0
        self._reasons: Counter[tuple[str, str]] = Counter()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes.

        Raises:
            UserError: more than the borne share of all items so far has failed.
        """
        for outcome in outcomes:
            self._items += 1
            if outcome.status == FAILED:
                self._failed += 1
                self._reasons[(outcome.stage, _general(outcome.error))] += 1
        if self._items >= self._min_items and self._failed > self._max_rate * self._items:
            raise UserError(self._diagnosis())

    def _diagnosis(self) -> str:
        (stage, reason), count = self._reasons.most_common(1)[0]
        cause = next((cause for pattern, cause in _CAUSES if re.search(pattern, reason.lower())), None)
        likely = f"Likely {cause}" if cause else "See errors.parquet there for each"
        return (
            f"Stopped: {self._failed} of {self._items} inputs failed, more than --max-failure-rate {self._max_rate:g} "
            f"allows; {count} of them at {stage!r} with {reason!r}. {likely}; then run the same command again with "
            f"--retry-failed."
        )


def _general(reason: str) -> str:
    """Return a reason without the numbers that make each one different."""
    return re.sub(r"\d+", "N", reason)
