"""Reads YAML so that it means what it says: every key once, words are words, paths have a place.

Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2, 10.3.2) in decimal. PyYAML
by itself follows YAML 1.1, where `yes` is true, `010` is 8, `1:30` is 90 and `1e-3` is a word.
"""

import re
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """A value that the user gave is wrong; the message names it, what is allowed and the remedy.

    The command line prints it as one line and exits with code 2.
    """


class TextOfFile(str):
    """A string from a file, which remembers the file's folder; see `absolute_path`."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> "TextOfFile":
        """The text, read from a file in `folder`."""
        made = super().__new__(cls, text)
        made.folder = folder
        return made


def absolute_path(given: str | Path) -> Path:
    """The absolute path that a user means.

    A relative one counts from the folder of the file that holds it, else (on a command line, in
    code) from the working folder. `~` is the home folder.
    """
    folder = given.folder if isinstance(given, TextOfFile) else Path.cwd()
    return folder.absolute() / Path(given).expanduser()


def read_values(path: str | Path) -> dict[str, Any]:
    """The values of a YAML file over those of its `base` files; see `laid_over`.

    Returns:
        Nested plain values; strings are `TextOfFile`.

    Raises:
        ConfigError: As for `load_config`.
    """
    return _read_with_base(Path(path), seen=())


def laid_over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Nested values in which those of `top` stand before those of `base`, as with a `base` file.

    Mappings are merged key by key; one that gives a `kind` other than that below it begins anew,
    because another kind has other keys.
    """
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if (
            isinstance(value, dict)
            and isinstance(below, dict)
            and value.get("kind", below.get("kind")) == below.get("kind")
        ):
            merged[key] = laid_over(below, value)
        else:
            merged[key] = value
    return merged


def with_override(values: dict[str, Any], override: str) -> dict[str, Any]:
    """A copy of nested values with one `a.b=value` (value in YAML syntax) laid over them.

    Raises:
        ConfigError: It is not of that form.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: not of the form key.subkey=value")
    *parents, last = key.split(".")
    changed = place = dict(values)
    for parent in parents:
        inner = place.get(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: `{parent}` is a value, not a group of keys")
        place[parent] = place = dict(inner)
    try:
        place[last] = yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {_reason(error)}") from None
    return changed


def as_yaml(values: dict[str, Any]) -> str:
    """Nested plain values as the text of a YAML file, from which `read_values` gives them."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base` files form a loop; remove one of the `base` keys")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
        values = _placed(values, path.parent)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {_reason(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: an anchor contains itself; remove its alias") from None
    if not isinstance(values, dict):
        kind = "str" if isinstance(values, str) else type(values).__name__
        raise ConfigError(f"{path}: holds a {kind}; a mapping is needed")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: `base` = {base!r}; give the name of one YAML file")
    below = path.parent / Path(base).expanduser()
    return laid_over(_read_with_base(below, (*seen, path.resolve())), values)


def _placed(values: Any, folder: Path) -> Any:
    """A copy in which strings remember the folder, and aliases no longer share their anchor."""
    if isinstance(values, dict):
        return {key: _placed(value, folder) for key, value in values.items()}
    if isinstance(values, list):
        return [_placed(value, folder) for value in values]
    return TextOfFile(values, folder) if isinstance(values, str) else values


class _GivenTwiceError(yaml.YAMLError):
    """A key stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """Keys are unique and scalars are those of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # instead of YAML 1.1's

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise _GivenTwiceError(
                    f"key `{key.value}` is given in line {lines[key.value]} and again in line "
                    f"{line}; keep one of them"
                )
            lines[key.value] = line
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes words that YAML 1.1 or 1.2 would take for something else."""


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    for _reader_or_writer in (_Loader, _Dumper):
        _reader_or_writer.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}",
            re.compile(rf"^(?:{_pattern})$"),
            ["" if first == "\0" else first for first in _first],
        )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, _GivenTwiceError) else f"not valid YAML ({text})"
