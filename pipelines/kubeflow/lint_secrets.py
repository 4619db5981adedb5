"""What looks like a secret in plain text: whoever sees a run sees its parameters and commands.

>>> list(in_constant("settings", {"user": "me", "password": "hunter2"}))
['settings.password']
>>> in_words(["sh", "-c", "DB_PASSWORD=hunter2 work --token $TOKEN"])
['DB_PASSWORD']
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

NAME = re.compile(r"secret|passw|token(?!i[sz])|credential|api[_-]?key|access[_-]?key", re.IGNORECASE)
ABOUT = re.compile(r"(tokens|[_-](file|path|name|dir|size|count|length|limit))$", re.IGNORECASE)
"""Ends of names that tell about a secret, or about words of a text, and hold none: `--token-file`, `max_tokens`."""
VALUE = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"  # the id of an AWS key, for good or for hours
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{22,}|\bhf_[A-Za-z0-9]{30,}\b"
    r"|://[^/\s:@]+:[^/\s@{]+@"  # user:password@host
)
_BARE = r"""["']?([^\s"'$<{(),;&|-][^\s"'$<{(),;&|]*)"""
"""A word that is no variable of a shell, no placeholder of Kubeflow and no call in a program."""
FLAG = re.compile(rf"(?<!\S)--?([A-Za-z][\w.-]*)(?:=|\s+){_BARE}")
ASSIGNED = re.compile(rf"(?<![\w.-])([A-Za-z_]\w*)={_BARE}[\"']?(?=[\s;&|]|$)")
ASSIGNED_IN_PROGRAM = re.compile(rf"^(?:export\s+)?([A-Za-z_]\w*)={_BARE}[\"']?(?=[\s;&|]|$)", re.MULTILINE)
"""In a text of several lines: elsewhere in a line `token=token` is how Python passes an argument on."""
QUOTED = re.compile(r"""([A-Za-z_][\w-]*)["']?\]?\s*[:=]\s*["']([^"'$<{}\s]+)["']""")
"""`password = "hunter2"` of a program, `"password": "hunter2"` of JSON."""


def named(name: str) -> bool:
    """Whether what is called so is a secret."""
    return bool(NAME.search(name) and not ABOUT.search(name))


def in_constant(name: str, value: Any) -> Iterator[str]:
    """Names of the secrets in a constant: a text, or texts in lists and mappings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from in_constant(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from in_constant(name, inner)
    elif isinstance(value, str) and value and not value.startswith("{{$"):
        if named(name.rpartition(".")[2]) or VALUE.search(value):
            yield name
        else:
            yield from (f"{name}.{key}" for key, _ in QUOTED.findall(value) if named(key))


def in_words(words: Iterable[str]) -> list[str]:
    """Names of the secrets in a command and its arguments, in one word or in two: `--password hunter2`."""
    texts = [str(word) for word in words]
    line = " ".join(text for text in texts if "\n" not in text)
    found = [*FLAG.findall(line), *ASSIGNED.findall(line)]
    for text in texts:
        found += QUOTED.findall(text)
        if "\n" in text:
            found += [*FLAG.findall(text), *ASSIGNED_IN_PROGRAM.findall(text)]
    names = [name for name, _ in found if named(name)]
    return list(dict.fromkeys([*names, *("what looks like a key" for text in texts if VALUE.search(text))]))
