"""ROS parameter files in all their forms, applied to a list of nodes.

A file names nodes by full name, with or without the first slash, by namespaces above them, or by
wildcards: `*` is one part of a name, `**` any number of parts. Where several entries fit a node,
the last one in the file wins, as in ROS (design.ros2.org/articles/160_ros_command_line_arguments;
rcl_yaml_param_parser).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from dexgrasp_sim.bringup import NodeSpec
from dexgrasp_sim.config import ConfigError

_PARAMETERS = "ros__parameters"
_SCALARS = (bool, int, float, str)


class _Loader(yaml.SafeLoader):
    """Takes 1e3 for a number, as ROS does and YAML 1.1 does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def with_parameter_file(nodes: Sequence[NodeSpec], path: Path) -> list[NodeSpec]:
    """The nodes with values overridden by a ROS parameter file.

    Entries for other nodes are passed over, since one file may serve a whole robot.

    Raises:
        ConfigError: The file cannot be read, is no parameter file, or fits none of the nodes.
    """
    source = f"--params {path}"
    entries = list(_entries(_read(path, source), "", source))
    fitting = {node.name: _parameters_of(node, entries) for node in nodes}
    if entries and not any(fits for fits, _ in fitting.values()):
        raise ConfigError(
            f"{source}: is for {', '.join(name for name, _ in entries)}; must be for one of "
            f"{', '.join(fitting)}, or for `/**`"
        )
    return [
        replace(node, parameters={**node.parameters, **fitting[node.name][1]}) for node in nodes
    ]


def _parameters_of(
    node: NodeSpec, entries: Sequence[tuple[str, Mapping[str, Any]]]
) -> tuple[bool, dict[str, Any]]:
    """Whether any entry fits a node, and the values of those that do."""
    own = [values for name, values in entries if _pattern(name).fullmatch(f"/{node.name}")]
    return bool(own), {key: value for values in own for key, value in values.items()}


def _pattern(name: str) -> re.Pattern[str]:
    """What a node's full name must look like to fit the name of an entry."""
    parts = {"**": r"(/[^/]+)*", "*": r"/[^/]+"}
    return re.compile("".join(parts.get(part, "/" + re.escape(part)) for part in name.split("/")))


def _read(path: Path, source: str) -> Any:
    try:
        return yaml.load(path.read_text(), _Loader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: is no text") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from None


def _entries(content: Any, above: str, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and flat parameters of every node in the file, in its order."""
    if content is None and not above:
        return
    if not isinstance(content, dict):
        raise ConfigError(
            f"{source}: `{above or content}` must hold node names, and each of them "
            f"`{_PARAMETERS}:`"
        )
    for key, below in content.items():
        name = f"{above}/{str(key).strip('/')}".lstrip("/")
        if isinstance(below, dict) and _PARAMETERS in below:
            if set(below) != {_PARAMETERS}:
                raise ConfigError(f"{source}: `{name}` must hold `{_PARAMETERS}` only")
            yield name, dict(_flat(below[_PARAMETERS], "", f"{source}: `{name}`"))
        else:
            yield from _entries(below, name, source)


def _flat(values: Any, above: str, source: str) -> Iterator[tuple[str, Any]]:
    """Parameters by dotted name; nested mappings are the parts of a name."""
    if values is None and not above:
        return
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: `{_PARAMETERS}` must hold `name: value` pairs")
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.", source)
        elif reason := _why_not(value):
            raise ConfigError(f"{source}: parameter {name} = {value!r}: {reason}")
        else:
            yield name, value


def _why_not(value: Any) -> str:
    """Why ROS has no parameter of this value; "" if it has."""
    if value is None:
        return "has no value; give one, or leave the name out"
    if isinstance(value, _SCALARS):
        return ""
    if not isinstance(value, list):
        return "must be a bool, number, text or list; put a text in quotes"
    if not value:
        return "an empty list has no type in ROS; leave the name out"
    if len({type(item) for item in value}) > 1 or not isinstance(value[0], _SCALARS):
        return "the values of a list must be bools, or integers, or floats, or texts"
    return ""
