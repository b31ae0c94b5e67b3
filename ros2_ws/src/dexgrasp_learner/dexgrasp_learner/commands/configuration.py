"""`dexgrasp config`: the values that a run would have, and the keys that it can have."""

import argparse
import difflib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexgrasp_sim.arguments import add_json, add_overrides

_WIDTH = 99
_INDENT = "    "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp config`."""
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="{show,keys}")
    show = subjects.add_parser(
        "show", help="print the resolved config of a run as YAML, which can be used as its file"
    )
    show.add_argument("config", type=Path, help="YAML file of the run")
    add_overrides(show)
    add_json(show)
    keys = subjects.add_parser("keys", help="list keys with type, default, unit and meaning")
    keys.add_argument(
        "prefix", nargs="?", default="", help="beginning of the keys to list, such as task.spawn"
    )
    add_json(keys)


def run(args: argparse.Namespace) -> int:
    """Prints the config or the keys; returns the exit code.

    Raises:
        ConfigError: The config is wrong, or no key begins like that.
    """
    print(_shown(args) if args.subject == "show" else _listed(args))
    return 0


def _shown(args: argparse.Namespace) -> str:
    from dexgrasp_learner.config import load_run_config
    from dexgrasp_sim.config import to_dict
    from dexgrasp_sim.yaml_file import as_yaml

    values = to_dict(load_run_config(args.config, args.overrides))
    return json.dumps(values) if args.json else as_yaml(values).rstrip("\n")


def _listed(args: argparse.Namespace) -> str:
    from dexgrasp_learner.config import RunConfig
    from dexgrasp_sim.config import ConfigError
    from dexgrasp_sim.config_keys import config_keys

    every = list(config_keys(RunConfig()))
    chosen = [key for key in every if _begins(key.name, args.prefix)]
    if not chosen:
        near = difflib.get_close_matches(args.prefix, _groups_and_keys(every), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give none to list all"
        raise ConfigError(f"no key begins with {args.prefix!r}; {hint}")
    if args.json:
        return json.dumps([key._asdict() for key in chosen])
    return "\n".join(line for key in chosen for line in _lines(*key))


def _begins(name: str, prefix: str) -> bool:
    """Whether a key is `prefix` or in the group or list of this name; all keys are in ""."""
    return not prefix or name == prefix or name.startswith((f"{prefix}.", f"{prefix}["))


def _groups_and_keys(keys: Sequence[Any]) -> list[str]:
    parts = [key.name.split(".") for key in keys]
    return list({".".join(name[:depth]): 0 for name in parts for depth in range(1, len(name) + 1)})


def _lines(name: str, allowed: str, default: Any, unit: str, meaning: str) -> list[str]:
    shown = default if default == "required" else f"default {json.dumps(default)}"
    first = ", ".join(part for part in (allowed, unit, shown) if part)
    wrap = textwrap.TextWrapper(
        _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False
    )
    return [name, *wrap.wrap(first), *wrap.wrap(meaning)]
