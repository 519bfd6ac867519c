"""Bottleneck of a running graph: the operator with the busiest workers."""

import time
from collections import deque
from collections.abc import Mapping

_WINDOW_S = 60.0


class Bottleneck:
    """Operator whose workers were busiest in a recent time window.

    Args:
        workers: number of workers of each operator, by the metric that holds its seconds.
        window_s: length of the window in seconds.
    """

    def __init__(self, workers: Mapping[str, int], window_s: float = _WINDOW_S) -> None:
        self._workers, self._window_s = dict(workers), window_s
        self._recent: deque[tuple[float, Mapping[str, float]]] = deque()
        self._seconds = dict.fromkeys(self._workers, 0.0)

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a committed batch."""
        now = time.monotonic()
        self._recent.append((now, metrics))
        self._count(metrics, 1)
        while self._recent[0][0] < now - self._window_s:
            self._count(self._recent.popleft()[1], -1)

    @property
    def operator(self) -> str | None:
        """Name of the operator, such as "decode"; None with a single operator or before the first batch."""
        if len(self._workers) < 2 or not self._recent:
            return None
        name = max(self._workers, key=lambda one: self._seconds[one] / self._workers[one])
        return name.removesuffix("_s")

    def _count(self, metrics: Mapping[str, float], sign: int) -> None:
        for name in self._seconds:
            self._seconds[name] += sign * metrics.get(name, 0.0)
