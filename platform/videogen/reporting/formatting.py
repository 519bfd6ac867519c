"""Number formatting for people: counts, shares, durations, rates, bytes, and round axis steps."""

import math

_ROUND_FACTORS = (1, 2, 2.5, 5, 10)


def count(number: float) -> str:
    """Return 1234567 as "1,234,567"."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """Return a number in at most five characters: 1234567 as "1.23M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(number) >= size:
            return f"{number / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def in_words(number: int) -> str:
    """Return a number below ten as a word, for running text."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[number] if number < len(words) else str(number)


def in_bytes(number: float) -> str:
    """Return a number of bytes with its unit: "1.5 kB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}" if unit != "bytes" else f"{number:.0f} bytes"
        number /= 1000
    return f"{number:.3g} TB"


def percent(part: float, whole: float) -> str:
    """Return a share in percent; never "0 %" of a non-zero part, nor "100 %" of less than the whole."""
    if not whole:
        return "0 %"
    value = 100 * part / whole
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %".replace(".0 %", " %")


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


def short_duration(seconds: float) -> str:
    """Return a duration that may be below a second: "4.2 ms", otherwise as `duration`."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def timestamp(seconds: float) -> str:
    """Return a position in a video as "3:07.5"."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}:{rest:04.1f}"


def rate_unit(rate: float) -> tuple[str, float]:
    """Return the unit of time that suits a rate per second, with its seconds: slow work is counted by the hour."""
    return next(
        ((unit, size) for unit, size in (("second", 1.0), ("minute", 60.0)) if rate * size >= 1), ("hour", 3600.0)
    )


def per(unit: str) -> str:
    """Return "a second", but "an hour"."""
    return f"an {unit}" if unit == "hour" else f"a {unit}"


def rate(number: float, seconds: float) -> str:
    """Return a rate: "12.3 a second", or "4.1 a minute" for slow work."""
    if seconds <= 0 or not number:
        return "none"
    unit, size = rate_unit(number / seconds)
    return f"{short(number / seconds * size)} {per(unit)}"


def column_label(name: str) -> str:
    """Return a column's name for running text: "start_s" as "start"."""
    return name.removesuffix("_s").replace("_", " ")


def round_step(span: float, parts: int) -> float:
    """Return the smallest round number that divides `span` into at most `parts` steps."""
    raw = span / parts
    power = 10.0 ** math.floor(math.log10(raw))
    return next((factor * power for factor in _ROUND_FACTORS if factor * power >= raw * (1 - 1e-9)), 10 * power)


def decimals(step: float) -> int:
    """Return how many decimals the multiples of a round step need."""
    return next((digits for digits in range(12) if math.isclose(step, round(step, digits), rel_tol=1e-9)), 12)
