"""Numbers with the letter of a power, and sizes as people write them."""

from __future__ import annotations

import re
from fractions import Fraction

BINARY = (" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB", " ZiB", " YiB")


def si(number: float) -> str:
    """Three digits and a power of ten: 1.23 T."""
    units = ("", " k", " M", " G", " T", " P", " E", " Z", " Y", " R", " Q")
    return _scaled(number, 1000, units)


def binary(number: float) -> str:
    """Three digits and a power of 1024: 1.50 MiB."""
    return _scaled(number, 1024, BINARY)


def seconds(time: float) -> str:
    """Three digits and a unit: 1.23 ms; above a day, and beyond, in powers of ten."""
    if time >= 99_999.5:
        return f"{time:.2e} s"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if time * factor >= 0.9995:
            return _scaled(time * factor, 1e9, (f" {unit}",), least=2)
    return _scaled(time * 1e9, 1e9, (" ns",), least=2)


def _scaled(number: float, base: float, units: tuple[str, ...], least: int = 0) -> str:
    value, place = float(number), 0
    while value >= 999.5 and place < len(units) - 1:
        value, place = value / base, place + 1
    if value >= 999.5 and len(units) > 1:
        return f"{float(number):.2e}"
    digits = 0 if (place == 0 and not least) or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{units[place]}"


POWERS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
          "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}  # fmt: skip
LENGTHS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def size_of(text: str) -> int:
    """"80GiB", "24 GB", "512": bytes."""
    return _number(text, POWERS, "bytes", "80GiB, 24GB or 1000000", optional="b")


def length_of(text: str) -> int:
    """"4096", "4k" (4,096), "1M" (1,048,576): tokens."""
    return _number(text, LENGTHS, "tokens", "4096, 4k or 1M")


def _number(text: str, powers: dict[str, int], what: str, example: str, optional: str = "") -> int:
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-zA-Z]*)\s*", text)
    unit = found[2].lower().removesuffix(optional or "\0") if found else ""
    if found is None or unit not in powers:
        raise ValueError(f"{text!r} is no number of {what}: write it as {example}")
    number = int(Fraction(found[1]) * powers[unit])
    if not 1 <= number <= 2**60:
        raise ValueError(f"{text!r} is not between 1 and 2^60 {what}")
    return number
