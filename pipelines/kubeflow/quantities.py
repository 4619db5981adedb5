"""Read the sizes and durations of Kubernetes: 16Gi, 500m, 5m.

>>> amount("1Ki") - amount("1k")
Decimal('24')
>>> seconds("5m")
300
"""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kKMGTPE]i?)?")
_DURATION = re.compile(r"(\d+)([smh])")
_UNITS = {"s": 1, "m": 60, "h": 3600}


def amount(quantity: str) -> Decimal:
    """Return the value of a Kubernetes quantity in bytes or cores. Raises ValueError."""
    match = QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError("a Kubernetes quantity is expected, such as 500m, 16Gi or 4")
    number, unit = match.groups(default="")
    if unit in ("", "m"):
        return Decimal(number) * (Decimal("0.001") if unit else 1)
    return Decimal(number) * (1024 if unit.endswith("i") else 1000) ** ("KMGTPE".index(unit[0].upper()) + 1)


def seconds(duration: str) -> int:
    """Return the value of a duration in s. Raises ValueError."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError("a duration is expected, such as 30s, 5m or 1h")
    return int(match[1]) * _UNITS[match[2]]


def _quantity(text: str) -> str:
    amount(text)
    return text


def _duration(text: str) -> str:
    seconds(text)
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]
QuantityOrNone = Annotated[str, AfterValidator(lambda text: text and _quantity(text))]
Duration = Annotated[str, AfterValidator(_duration)]
