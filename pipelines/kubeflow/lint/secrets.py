"""Rules for secrets: find what looks like one in plain text. Everyone who sees a run sees its parameters and commands.

>>> list(in_constant("settings", {"user": "me", "password": "hunter2"}))
['settings.password']
>>> in_words(["sh", "-c", "DB_PASSWORD=hunter2 work --token $TOKEN"])
['DB_PASSWORD']
"""

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pipelines.kubeflow.lint.finding import Problems

_NAME = re.compile(r"secret|passw|token(?!i[sz])|credential|api[_-]?key|access[_-]?key", re.IGNORECASE)
_ABOUT = re.compile(r"(tokens|[_-](file|path|name|dir|size|count|length|limit))$", re.IGNORECASE)
"""Ends of names that describe a secret, or words of a text, but hold none: `--token-file`, `max_tokens`."""
VALUE = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"  # the id of an AWS key, for good or for hours
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{22,}|\bhf_[A-Za-z0-9]{30,}\b"
    r"|://[^/\s:@]+:[^/\s@{]+@"  # user:password@host
)
_BARE = r"""["']?([^\s"'$<{(),;&|-][^\s"'$<{(),;&|]*)"""
"""A word that is neither a shell variable, nor a placeholder of Kubeflow, nor a call in a program."""
_FLAG = re.compile(rf"(?<!\S)--?([A-Za-z][\w.-]*)(?:=|\s+){_BARE}")
_ASSIGNED = re.compile(rf"(?<![\w.-])([A-Za-z_]\w*)={_BARE}[\"']?(?=[\s;&|]|$)")
_ASSIGNED_IN_PROGRAM = re.compile(rf"^(?:export\s+)?([A-Za-z_]\w*)={_BARE}[\"']?(?=[\s;&|]|$)", re.MULTILINE)
"""At the start of a line in a longer text: inside a line, `token=token` passes a keyword argument in Python."""
_QUOTED = re.compile(r"""([A-Za-z_][\w-]*)["']?\]?\s*[:=]\s*["']([^"'$<{}\s]+)["']""")
"""`password = "hunter2"` in a program, `"password": "hunter2"` in JSON."""


def names_secret(name: str) -> bool:
    """Whether a value of this name is a secret."""
    return bool(_NAME.search(name) and not _ABOUT.search(name))


def plain_text_secrets(task: dict[str, Any], component: dict[str, Any]) -> Problems:
    """Check the constants that a task passes, and the defaults of the other parameters."""
    given = task.get("inputs", {}).get("parameters", {})
    for name, item in given.items():
        yield from _constant(name, item.get("runtimeValue", {}).get("constant"))
    yield from secrets_in_defaults(component, given)


def secrets_in_defaults(component: dict[str, Any], given: Collection[str] = ()) -> Problems:
    """Check the defaults of a component's parameters. given: parameters that have another value."""
    for name, item in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if name not in given:
            yield from _constant(name, item.get("defaultValue"))


def _constant(name: str, value: Any) -> Problems:
    for found in in_constant(name, value):
        yield "secret", f"{found}: looks like a secret, and the UI shows parameters; use a Kubernetes secret"


def in_constant(name: str, value: Any) -> Iterator[str]:
    """Yield the names of the secrets in a constant: a text, or texts in lists and mappings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from in_constant(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from in_constant(name, inner)
    elif isinstance(value, str) and value and not value.startswith("{{$"):
        if names_secret(name.rpartition(".")[2]) or VALUE.search(value):
            yield name
        else:
            yield from (f"{name}.{key}" for key, _ in _QUOTED.findall(value) if names_secret(key))


def in_words(words: Iterable[str]) -> list[str]:
    """Return the names of the secrets in a command and its arguments, in one word or in two: `--password hunter2`."""
    texts = [str(word) for word in words]
    line = " ".join(text for text in texts if "\n" not in text)
    found = [*_FLAG.findall(line), *_ASSIGNED.findall(line)]
    for text in texts:
        found += _QUOTED.findall(text)
        if "\n" in text:
            found += [*_FLAG.findall(text), *_ASSIGNED_IN_PROGRAM.findall(text)]
    names = [name for name, _ in found if names_secret(name)]
    return list(dict.fromkeys([*names, *("a word that looks like a key" for text in texts if VALUE.search(text))]))
