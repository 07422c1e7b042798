"""Sizes as people write them. Units are decimal unless they say otherwise: MB is 10^6 bytes, MiB is 2^20.

Google writes its limits in MB and GB without defining them; the decimal reading is the one that cannot fail.
"""

from __future__ import annotations

import re
from decimal import Decimal

from servegraph.errors import InputError

_DECIMAL = ("B", "kB", "MB", "GB", "TB")
_EXPONENTS = {letter: exponent for exponent, letter in enumerate(" kmgt")}
_LEAST_BYTES = 1000  # of a size without a unit; below it one was forgotten
_LEAST_MB = 100  # from here on a number without a unit is more likely of MB than of GB
_LONGEST = 30  # characters; a longer one is no size of anything
_LIKE = "Write it like 500MB, 1.5GiB or a number of bytes."
_SIZE = re.compile(
    r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(?P<unit>(?:(?P<prefix>[kmgt])(?P<binary>i)?)?b?)\s*", re.IGNORECASE
)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `500MB`, `1.5 GiB`, `10g` or `123456`, rounded down.

    Raises:
        InputError: the text is not a size, or a number without a unit that is below 1 kB or no whole one, where GB or
            MB were most likely meant (code `BAD_SIZE`).
    """
    found = _SIZE.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise InputError(
            f"{text!r} is not a size.",
            code="BAD_SIZE",
            fix=_LIKE,
        )
    number = Decimal(found[1])
    is_whole = number == number.to_integral_value()
    if found["prefix"] is None and not (is_whole and (found["unit"] or number >= _LEAST_BYTES)):
        meant = f"Did you mean {number}{'MB' if number >= _LEAST_MB else 'GB'}? Write the unit; of bytes that is B."
        raise InputError(
            f"{text!r} is {number} bytes, as it has no larger unit: too few to be meant.",
            code="BAD_SIZE",
            fix=meant if number and not found["unit"] else _LIKE,
        )
    step = 1024 if found["binary"] else 1000
    return int(number * step ** _EXPONENTS[(found["prefix"] or " ").lower()])


def format_size(size_bytes: int) -> str:
    """Return a size in decimal units with three significant digits, such as `74.6 kB` or `1.20 GB`.

    A size is rounded up, never down, so that one just above a limit does not look like the limit.
    """
    if size_bytes < 1000:
        return f"{size_bytes} B"
    exponent = min((len(str(size_bytes)) - 1) // 3, len(_DECIMAL) - 1)
    digits = max(0, 3 * exponent + 2 - (len(str(size_bytes)) - 1))
    scale = 10 ** (3 * exponent - digits)
    rounded = -(-size_bytes // scale) * scale
    if len(str(rounded)) > len(str(size_bytes)):
        return format_size(rounded)
    return f"{Decimal(rounded) / 1000**exponent:.{digits}f} {_DECIMAL[exponent]}"
