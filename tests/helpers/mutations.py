"""Change files at random, but the same way for a seed: bytes, and the values of JSON and YAML."""

import copy
import json
import random
import struct
from typing import Any

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e999, -1e999, float("nan"), 2**31, 2**63, 2**64, -(2**63), 10**400, 1e-320, 0.5),
    *(
        "",
        " ",
        "a" * 10_000,
        "../../x",
        "/etc/passwd",
        "\x00",
        "\n",
        "\u202e",
        "\ud800",
        "=1+1",
        "%s",
        "{0}",
        "é",
        "1e9",
    ),
    *([], {}, [[]], [None], {"": None}, [[[[[[]]]]]], {"a": {"a": {"a": 1}}}, [1] * 1000, {"$ref": "#"}),
)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change a few places of a file: bits, numbers, pieces cut out, repeated, moved or replaced."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        size = min(rng.choice((1, 4, 16, 256)), len(changed) - at)
        match rng.randrange(7):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                number = struct.pack(rng.choice("<>") + "I", rng.choice(_NUMBERS))[: rng.choice((1, 2, 4))]
                changed[at : at + len(number)] = number
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size] * rng.choice((1, 2, 50))
            case 4:
                changed[at : at + size] = rng.randbytes(size)
            case 5:
                del changed[at:]
            case 6:
                other = rng.randrange(len(changed))
                changed[at : at + size] = changed[other : other + size]
    return bytes(changed)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """Change one to three places of a JSON value: other values, missing, repeated and additional ones."""
    changed = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(changed, rng)
    return changed[0]


def _change(top: list[Any], rng: random.Random) -> None:
    holders: list[tuple[Any, Any]] = [(top, 0)]
    for holder, key in holders:
        inner = holder[key]
        if isinstance(inner, dict):
            holders += [(inner, name) for name in inner]
        elif isinstance(inner, list):
            holders += [(inner, i) for i in range(min(len(inner), 20))]
    holder, key = rng.choice(holders)
    match rng.randrange(5):
        case 0 if holder is not top:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        case 2 if isinstance(holder, dict):
            holder[rng.choice(("x", "", "kind", "é"))] = copy.deepcopy(holder[key])
        case 3:
            holder[key] = [holder[key]]
        case _:
            holder[key] = copy.deepcopy(rng.choice(_VALUES))


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change a JSON text: its values, or, one time in four, its bytes."""
    if rng.randrange(4) == 0:
        return mutate(data, rng)
    return json.dumps(mutate_value(json.loads(data), rng)).encode()
