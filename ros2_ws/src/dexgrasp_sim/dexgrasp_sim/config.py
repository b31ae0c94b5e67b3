"""Typed configuration: defaults live in frozen dataclasses, YAML files hold overrides only."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from dexgrasp_sim.units import NO_UNIT, Unit, implausible, unit_of
from dexgrasp_sim.yaml_file import ConfigError, read_values, with_override

STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
"""For every config dataclass: unknown keys and numbers that are not finite are errors."""

LARGEST_SEED = 2**32 - 1
"""The largest that numpy's, torch's and C's generators all take; sums of seeds stay far below 64
bits."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]

ConfigClass = TypeVar("ConfigClass")


def load_config(
    config_class: type[ConfigClass], path: str | Path, overrides: Sequence[str] | None = None
) -> ConfigClass:
    """Reads a YAML file of overrides into a config dataclass.

    Args:
        config_class: A frozen pydantic dataclass; keys that are not given have its defaults.
        path: YAML file. A top-level key `base` names another file, relative to this one, whose
            values apply to keys that are not in this file.
        overrides: `a.b=value` strings (value in YAML syntax) that override the file.

    Raises:
        ConfigError: The file is missing or not a mapping, a key is unknown or given twice, or a
            value has the wrong type or is not allowed. The message is one line that names every
            wrong key, and for each whether the file or which override is to blame.
    """
    return _overridden(config_class, read_values(path), str(path), overrides or [])


def parse_config(
    config_class: type[ConfigClass], values: dict[str, Any], source: str = "config"
) -> ConfigClass:
    """Builds a config dataclass from nested plain values; see `load_config` for the errors."""
    result = _validated(config_class, values)
    if isinstance(result, _Problems):
        raise ConfigError(f"{source}: " + "; ".join(result))
    return result


def with_overrides(config: ConfigClass, overrides: Sequence[str]) -> ConfigClass:
    """A config with single values changed by `key.key=value`; errors as for `load_config`."""
    return _overridden(type(config), to_dict(config), "config", overrides)


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved config as nested plain values that YAML and JSON can hold."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def replace(config: ConfigClass, **changes: Any) -> ConfigClass:
    """A copy of a config dataclass with some fields changed (and validated again)."""
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


class _Problems(tuple[str, ...]):
    """What is wrong with given values, a clause for each key."""


def _overridden(
    config_class: type[ConfigClass],
    values: dict[str, Any],
    source: str,
    overrides: Sequence[str],
) -> ConfigClass:
    """The config of a source's values after all overrides; blames the first that is wrong."""
    stages = [values]
    for override in overrides:
        stages.append(with_override(stages[-1], override))
    result = _validated(config_class, stages[-1])
    if not isinstance(result, _Problems):
        return result
    sources = [source, *(f"--set {override}" for override in overrides)]
    raise ConfigError(_blame(result, sources, config_class, stages))


def _validated(config_class: type[ConfigClass], values: dict[str, Any]) -> ConfigClass | _Problems:
    try:
        config = TypeAdapter(config_class).validate_python(values)
    except ValidationError as error:
        return _Problems(_describe(clause, values) for clause in error.errors())
    impossible = _Problems(_impossible_numbers(values, to_dict(config)))
    return impossible or config


def _impossible_numbers(
    given: Any, read: Any, keys: tuple[str, ...] = (), unit: Unit = NO_UNIT
) -> Iterator[str]:
    """Clauses for given numbers that no type refuses.

    They are true and false where a number is needed, which pydantic takes as 1 and 0, and numbers
    that are not plausible in the unit of their key or of the group that they are in.
    """
    if isinstance(given, dict) and isinstance(read, dict):
        for key in [key for key in given if key in read]:
            own = unit_of(key)
            inner = unit if own is NO_UNIT else own
            yield from _impossible_numbers(given[key], read[key], (*keys, key), inner)
    elif isinstance(given, list | tuple) and isinstance(read, list):
        for index, (one, other) in enumerate(zip(given, read)):
            yield from _impossible_numbers(one, other, (*keys, str(index)), unit)
    elif isinstance(read, int | float) and not isinstance(read, bool):
        is_truth = isinstance(given, bool)
        problem = "a number is needed; write one" if is_truth else implausible(read, unit)
        if problem:
            yield f"`{'.'.join(keys)}` = {given}: {problem}"


def _blame(
    problems: _Problems, sources: Sequence[str], config_class: type, stages: Sequence[Any]
) -> str:
    """The problems in order, each after what brought it: `sources[i]` gave `stages[i]`."""
    found = [_validated(config_class, values) for values in stages]
    clauses, named = [], ""
    for problem in problems:
        at = next(i for i, those in enumerate(found) if _among(problem, those))
        clauses.append(problem if sources[at] == named else f"{sources[at]}: {problem}")
        named = sources[at]
    return "; ".join(clauses)


def _among(problem: str, result: Any) -> bool:
    return isinstance(result, _Problems) and problem in result


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
    if error["type"] == "string_type" and isinstance(error["input"], int | float):
        message += "; put it in quotes"
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
