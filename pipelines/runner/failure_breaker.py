"""Failure breaker: stops a run early when too many inputs fail."""

import re
from collections import Counter
from collections.abc import Iterable

from videogen.data.tables import FAILED, Outcome
from videogen.errors import UserError

_CAUSES = (
    (
        r"credential|access ?denied|forbidden|signature|token|\b403\b",
        "wrong or expired credentials: check the AWS variables",
    ),
    (
        r"decoder not found|no decoder|codec|\bav1\b|unsupported",
        "a codec that the decoder lacks: try --decoder auto or pyav",
    ),
    (r"no such file|not exist|not found|\b404\b", "the files are not where the input says: check its paths"),
    (r"permission denied", "files that the workers may not read: check their permissions"),
    (r"no space|\bdisk\b", "a full disk: make room on the workers"),
    (r"memory", "too little memory for these videos: run fewer decoders a node"),
    (r"timed out|timeout|connect|endpoint|reset", "a slow or unreachable storage: check the network"),
    (r"stopped after", "too little time for these videos, or a slow storage: raise --video-limit"),
)
_SAME_IN_A_ROW = 1000


class TooManyFailuresError(UserError):
    """Too large a share of the inputs of a run failed."""


class FailureBreaker:
    """Counter of outcomes that raises when too large a share of inputs failed.

    All items of one file in a batch count once, and as failed only if all of them failed: a single file that claims a
    thousand clips must not stop a run.

    Args:
        max_rate: tolerated share of failed inputs, 0..1; 1 tolerates all.
        min_inputs: inputs before the first check.
        done_well: inputs that succeeded in earlier runs; retries of failed inputs are expected to fail more often.
        errors: URI of the list of failures, for the message.
    """

    def __init__(
        self, max_rate: float = 0.5, min_inputs: int = 100, errors: str = "errors.parquet", done_well: int = 0
    ) -> None:
        self._max_rate, self._min_inputs, self._errors = max_rate, min_inputs, errors
        self._inputs, self._failed = done_well, 0
        self._alike, self._in_a_row = ("", ""), 0
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], Outcome] = {}

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count the outcomes of a batch.

        Raises:
            TooManyFailuresError: more than the tolerated share of all inputs failed, or the last thousand inputs all
                failed for the same reason.
        """
        by_input: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            by_input.setdefault(outcome.uri or outcome.item_id, []).append(outcome)
        self._inputs += len(by_input)
        for several in by_input.values():
            if not all(outcome.status == FAILED for outcome in several):
                self._in_a_row = 0
                continue
            self._failed += 1
            kind = (several[0].stage, _general(several[0].error))
            self._in_a_row = self._in_a_row + 1 if kind == self._alike else 1
            self._alike = kind
            self._reasons[kind] += 1
            self._examples.setdefault(kind, several[0])
        if self._inputs >= self._min_inputs and self._failed > self._max_rate * self._inputs:
            kind, count = self._reasons.most_common(1)[0]
            raise TooManyFailuresError(
                f"Stopped: {self._failed} of {self._inputs} inputs failed, more than --max-failure-rate "
                f"{self._max_rate:g} allows; {count} of them {self._diagnosis(kind)}"
            )
        if self._in_a_row >= _SAME_IN_A_ROW and self._max_rate < 1:
            raise TooManyFailuresError(
                f"Stopped: the last {self._in_a_row} inputs failed {self._diagnosis(self._alike)}"
            )

    def _diagnosis(self, kind: tuple[str, str]) -> str:
        stage, reason = kind
        example = self._examples[kind]
        said = example.error.lower()
        cause = next((cause for pattern, cause in _CAUSES if re.search(pattern, said)), None)
        likely = f"Likely {cause}" if cause else "Look at one of them"
        return (
            f"at {stage!r} with {reason!r}, the first {example.uri!r}; all are in {self._errors!r}. {likely}; then run "
            f"the same command again with --retry-failed."
        )


def _general(reason: str) -> str:
    """Return a reason without its numbers, so that similar reasons are equal."""
    return re.sub(r"\d+", "N", reason)
