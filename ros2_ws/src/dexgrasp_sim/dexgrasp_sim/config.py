"""Typed configuration: defaults live in frozen dataclasses, YAML files hold overrides only."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
"""For every config dataclass: unknown keys and numbers that are not finite are errors."""

ConfigClass = TypeVar("ConfigClass")


class ConfigError(ValueError):
    """A value that the user gave is wrong; the message names it, what is allowed and the remedy.

    The command line prints it as one line and exits with code 2.
    """


def load_config(
    config_class: type[ConfigClass], path: str | Path, overrides: list[str] | None = None
) -> ConfigClass:
    """Reads a YAML file of overrides into a config dataclass.

    Args:
        config_class: A frozen pydantic dataclass; keys that are not given have its defaults.
        path: YAML file. A top-level key `base` names another file, relative to this one, whose
            values apply to keys that are not in this file.
        overrides: `a.b=value` strings (value in YAML syntax) that override the file.

    Raises:
        ConfigError: The file is missing or not a mapping, a key is unknown, or a value has the
            wrong type or is not allowed. The message is one line that names every wrong key.
    """
    values = read_values(path)
    for override in overrides or []:
        _set_key(values, override)
    return parse_config(config_class, values, source=str(path))


def read_values(path: str | Path) -> dict[str, Any]:
    """The values of a YAML file merged over its `base` files; errors as for `load_config`."""
    return _read_with_base(Path(path), seen=())


def parse_config(
    config_class: type[ConfigClass], values: dict[str, Any], source: str = "config"
) -> ConfigClass:
    """Builds a config dataclass from nested plain values; see `load_config` for the errors."""
    try:
        return TypeAdapter(config_class).validate_python(values)
    except ValidationError as error:
        clauses = [_describe(clause, values) for clause in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(clauses)) from None


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved config as nested plain values that YAML and JSON can hold."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def replace(config: ConfigClass, **changes: Any) -> ConfigClass:
    """A copy of a config dataclass with some fields changed (and validated again)."""
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base` files form a loop; remove one of the `base` keys")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({_one_line(error)})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; a mapping is needed")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: `base` = {base!r}; give the name of one YAML file")
    return _merge(_read_with_base(path.parent / base, (*seen, path.resolve())), values)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_mappings else value
    return merged


def _set_key(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: not of the form key.subkey=value")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: `{parent}` is a value, not a group of keys")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: not valid YAML ({_one_line(error)})") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _describe(error: Any, values: Any) -> str:
    """One clause for one pydantic error in `values`: key = value: what is allowed."""
    key = ".".join(_keys(error["loc"], values)) or "top level"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key `{key}`; remove it or correct its spelling"
    if error["type"] == "missing":
        return f"`{key}` is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], dict):  # a check of several keys, which the message names
        return f"`{key}`: {message}" if error["loc"] else message
    shown = repr(error["input"])
    return f"`{key}` = {shown if len(shown) <= 80 else shown[:77] + '...'}: {message}"


def _keys(location: tuple[int | str, ...], values: Any) -> list[str]:
    """The keys that lead to an error, as the user wrote them.

    For a value of several possible classes, pydantic's location contains the class like a key,
    which is left out here.
    """
    keys = []
    for depth, part in enumerate(location, start=1):
        try:
            values = values[part]
        except (LookupError, TypeError):
            if depth < len(location):
                continue
        keys.append(str(part))
    return keys
