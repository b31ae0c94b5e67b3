"""The keys of a config: types, defaults, units and meanings, read from the dataclasses.

The meaning of a key is its entry under `Attributes:` in the docstring of its dataclass, the unit
is the end of its name (`palm_speed_m_s`), the type comes from pydantic's JSON schema.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter

from dexgrasp_sim.config import to_dict
from dexgrasp_sim.schedules import Ramp, Schedule
from dexgrasp_sim.units import unit_of

_ATTRIBUTE = re.compile(r"    (\w+): (.*)")


class Key(NamedTuple):
    """One key of a config.

    Attributes:
        name: Dotted; `[]` stands for each item of a list.
        type: What is allowed, in words.
        default: Plain values; for an item of a list that must have the key, `REQUIRED`.
        unit: "" for none.
        meaning: From the docstring.
    """

    name: str
    type: str
    default: Any
    unit: str
    meaning: str


REQUIRED = "required"


def config_keys(config: Any, prefix: str = "") -> Iterator[Key]:
    """The keys of a config dataclass and of those inside it, in their order.

    Args:
        config: An instance, whose values are the defaults, or a class.
        prefix: Goes before every name.
    """
    config_class = config if isinstance(config, type) else type(config)
    meanings, hints = documented(config_class), get_type_hints(config_class, include_extras=True)
    plain = {} if isinstance(config, type) else to_dict(config)
    for field in dataclasses.fields(config_class):
        name, hint = prefix + field.name, hints[field.name]
        value = _default(field) if isinstance(config, type) else getattr(config, field.name)
        if _is_group(hint):
            yield from config_keys(hint if value is REQUIRED else value, f"{name}.")
        elif choices := [choice for choice in _union(hint) if _is_group(choice)]:
            for choice in choices:
                yield from _of_choice(value if isinstance(value, choice) else choice, f"{name}.")
        else:
            default = plain[field.name] if plain else _plain(value)
            meaning = meanings.get(field.name, "")
            yield Key(name, type_text(hint), default, unit_of(field.name).symbol, meaning)
            for item in _item_types(hint):
                yield from config_keys(item, f"{name}[].")


def documented(config_class: type) -> dict[str, str]:
    """The entries under `Attributes:` in a class's docstring, each as one line."""
    _, _, section = inspect.cleandoc(config_class.__doc__ or "").partition("\nAttributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := _ATTRIBUTE.fullmatch(line):
            name = match[1]
            found[name] = match[2]
        elif line.startswith("     ") and name:
            found[name] += " " + line.strip()
    return found


def type_text(hint: Any) -> str:
    """What a field of this type takes, in words."""
    schema = TypeAdapter(hint).json_schema()
    return _text(schema, schema.get("$defs", {}))


def _of_choice(choice: Any, prefix: str) -> Iterator[Key]:
    """The keys of one of several dataclasses, which the first, `kind`, tells from the others."""
    kind, *others = config_keys(choice, prefix)
    for key in (kind, *others):
        yield key._replace(meaning=f"(kind: {kind.default}) {key.meaning}")


def _text(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_text(choice, definitions) for choice in choices)
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind: str = schema.get("type", "value")
    if kind == "array":
        return _array_text(schema, definitions)
    if kind == "object":
        return _OF_DIFFICULTY.get(schema.get("title", ""), "mapping")
    return schema.get("format") or _WORDS.get(kind, kind) + _limits(schema)


_WORDS = {"integer": "whole number", "boolean": "true or false", "string": "text"}
"""For types whose name in JSON schemas is not plain."""
_OF_DIFFICULTY = {
    Ramp.__name__: "number or {initial: number, final: number}",
    Schedule.__name__: "{initial: [low, high], final: [low, high]}",
}


def _array_text(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if fixed := schema.get("prefixItems"):
        return "[" + ", ".join(_text(item, definitions) for item in fixed) + "]"
    items = schema.get("items", {})
    if [item.get("type") for item in items.get("prefixItems", [])][:1] == ["string"]:
        return f"mapping of names to {_text(items['prefixItems'][1], definitions)}"
    inner = _text(items, definitions)
    return "list of groups" if inner == "mapping" else f"list of {inner}"


def _limits(schema: dict[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {_short(schema[name])}" for name, sign in signs.items() if name in schema]
    if pattern := schema.get("pattern"):
        limits.append(f"like {pattern}")
    return " " + " and ".join(limits) if limits else ""


def _short(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _is_group(hint: Any) -> bool:
    is_class = isinstance(hint, type) and dataclasses.is_dataclass(hint)
    return is_class and hint not in (Ramp, Schedule)


def _union(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else ()


def _item_types(hint: Any) -> tuple[Any, ...]:
    """The type of a list's items, if the hint is a list of any number of dataclasses."""
    inner = get_args(hint)
    is_list = len(inner) == 2 and inner[1] is Ellipsis and _is_group(inner[0])
    return inner[:1] if is_list else ()


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    else:
        return REQUIRED
    # pydantic's `Field(...)` as a default
    if hasattr(default, "get_default"):
        default = default.get_default(call_default_factory=True)
    return default


def _plain(value: Any) -> Any:
    return value if value is REQUIRED else TypeAdapter(Any).dump_python(value, mode="json")
