"""Which operator of a running graph holds the others up."""

import time
from collections import deque
from collections.abc import Mapping

_WINDOW_S = 60.0


class Bottleneck:
    """The operator whose workers have been busiest of late.

    Args:
        workers: of each operator, by the fact that holds its seconds, how many work at once.
        window_s: how far back "of late" reaches.
    """

    def __init__(self, workers: Mapping[str, int], window_s: float = _WINDOW_S) -> None:
        self._workers, self._window_s = dict(workers), window_s
        self._recent: deque[tuple[float, Mapping[str, float]]] = deque()
        self._seconds = dict.fromkeys(self._workers, 0.0)

    def add(self, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a unit that has just been committed."""
        now = time.monotonic()
        self._recent.append((now, metrics))
        self._count(metrics, 1)
        while self._recent[0][0] < now - self._window_s:
            self._count(self._recent.popleft()[1], -1)

    @property
    def operator(self) -> str | None:
        """Its name, such as "decode"; None where there is only one operator, or nothing is done yet."""
        if len(self._workers) < 2 or not self._recent:
            return None
        name = max(self._workers, key=lambda one: self._seconds[one] / self._workers[one])
        return name.removesuffix("_s")

    def _count(self, metrics: Mapping[str, float], sign: int) -> None:
        for name in self._seconds:
            self._seconds[name] += sign * metrics.get(name, 0.0)
