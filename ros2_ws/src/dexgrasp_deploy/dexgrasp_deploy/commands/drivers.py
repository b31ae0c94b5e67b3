"""`dexgrasp drivers`: what `arm.driver`, `hand.driver` and `camera.driver` may be."""

import argparse
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from dexgrasp_sim.arguments import add_json

_WIDTH = 99
_INDENT = "    "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp drivers`."""
    parser.add_argument(
        "name", nargs="?", default="", help="one driver or profile, with its parameters"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the drivers and profiles; returns the exit code.

    Raises:
        ConfigError: There is none of this name.
    """
    from dexgrasp_deploy.drivers.registry import entries
    from dexgrasp_sim.config import ConfigError

    every = list(entries())
    chosen = [entry for entry in every if args.name in ("", entry.name)]
    if not chosen:
        known = ", ".join(dict.fromkeys(entry.name for entry in every))
        raise ConfigError(f"no driver or profile {args.name!r}; there are {known}")
    if args.json:
        print(json.dumps([_plain(entry) for entry in chosen]))
    else:
        print("\n".join(_detailed(chosen) if args.name else _overview(chosen)))
    return 0


def _plain(entry: Any) -> dict[str, Any]:
    return {**entry._asdict(), "parameters": [key._asdict() for key in entry.parameters]}


def _overview(entries: Sequence[Any]) -> Iterator[str]:
    width = max(len(entry.name) for entry in entries)
    for kind in dict.fromkeys(entry.kind for entry in entries):
        yield f"{kind}.driver"
        for entry in entries:
            if entry.kind == kind:
                yield f"  {entry.name:{width}}  {entry.summary}"
        yield f"  {'package.module:Class':{width}}  your own driver, see docs/hardware.md"
        yield ""
    yield "`dexgrasp drivers NAME` lists the parameters of one."


def _detailed(entries: Sequence[Any]) -> Iterator[str]:
    for entry in entries:
        of = f", values for the driver {entry.driver}" if entry.driver != entry.name else ""
        yield f"{entry.kind}.driver = {entry.name}: {entry.summary}{of}"
        if entry.source:
            yield f"{_INDENT}from {entry.source}"
        for key in entry.parameters:
            yield key.name
            default = f"default {json.dumps(key.default)}"
            yield from _wrapped(", ".join(part for part in (key.type, key.unit, default) if part))
            yield from _wrapped(key.meaning)
        yield ""


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False
    )
