"""Numbers as people read them."""

import math


def count(number: float) -> str:
    """Return 1234567 as "1,234,567"."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """Return a number in at most five letters: 1234567 as "1.23M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(number) >= size:
            return f"{number / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def share(part: float, whole: float) -> str:
    """Return a share in percent; never "0 %" of something, nor "100 %" of not all."""
    if not whole:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %".replace(".0 %", " %")


def duration(seconds: float) -> str:
    """Return seconds as "0.4 s", "12 s", "3 min 05 s" or "2 h 07 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def brief(seconds: float) -> str:
    """Return a time that may be very short: "4.2 ms", or as `duration`."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def rate_unit(rate: float) -> tuple[str, float]:
    """Return the time in which a rate (one a second) is said, and its seconds: slow work is told by the hour."""
    return next(
        ((unit, size) for unit, size in (("second", 1.0), ("minute", 60.0)) if rate * size >= 1), ("hour", 3600.0)
    )


def article(unit: str) -> str:
    """Return "a second", but "an hour"."""
    return f"an {unit}" if unit == "hour" else f"a {unit}"


def rate(number: float, seconds: float) -> str:
    """Return a rate: "12.3 a second", or of slow work "4.1 a minute"."""
    if seconds <= 0 or not number:
        return "none"
    unit, size = rate_unit(number / seconds)
    return f"{short(number / seconds * size)} {article(unit)}"


def plain(name: str) -> str:
    """Return a column's name in running text."""
    return name.removesuffix("_s").replace("_", " ")


def decimals(step: float) -> int:
    """Return how many decimals multiples of a round step need."""
    return next((digits for digits in range(12) if math.isclose(step, round(step, digits), rel_tol=1e-9)), 12)
