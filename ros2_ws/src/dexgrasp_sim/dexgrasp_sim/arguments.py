"""Arguments of the command line: numbers with ranges, and those that several commands have."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from dexgrasp_sim.config import LARGEST_SEED, ConfigError

LONGEST_S = 1e6
"""Limit of waiting times, 11.6 days: a longer one is a mistake."""
MOST_ENVS = 1_000_000
"""Limit of numbers of environments, a hundred times what the largest GPUs hold."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; so do its subcommands."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and ends with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A `type` of arguments that takes whole numbers from `least` to `most`, None: any above."""
    allowed = f"a whole number from {least} {'up' if most is None else f'to {most}'}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise _not(text, allowed) from None
        if value < least or (most is not None and value > most):
            raise _not(text, allowed)
        return value

    return read


def number(
    least: float | None = None, most: float | None = None, above: float | None = None
) -> Callable[[str], float]:
    """A `type` of arguments that takes finite numbers: at least, at most, or above these."""
    limits = [("from", least), ("above", above), ("up to", most)]
    words = [f"{word} {limit:g}" for word, limit in limits if limit is not None]
    allowed = " ".join(["a number", *words])

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise _not(text, allowed) from None
        too_small = (least is not None and value < least) or (above is not None and value <= above)
        if not math.isfinite(value) or too_small or (most is not None and value > most):
            raise _not(text, allowed)
        return value

    return read


def resolution(text: str) -> tuple[int, int]:
    """A `type` of arguments for the size of images: width and height from `160x120`."""
    width, _, height = text.partition("x")
    try:
        read = whole(1, 4096)
        return read(width), read(height)
    except argparse.ArgumentTypeError:
        raise _not(text, "of the form WIDTHxHEIGHT, 1 to 4096 pixels each, as 160x120") from None


def parse_resolution(text: str) -> tuple[int, int]:
    """As `resolution`, for texts that are no arguments; ConfigError if it is not of that form."""
    try:
        return resolution(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(str(error)) from None


def add_seed(parser: argparse.ArgumentParser, default: int, of: str) -> None:
    """Adds `--seed`; `of` says what it is the seed of."""
    text = f"seed of {of}, 0 to {LARGEST_SEED} (default {default})"
    parser.add_argument("--seed", type=whole(0, LARGEST_SEED), default=default, help=text)


def add_seeds(parser: argparse.ArgumentParser, count: int, of: str) -> None:
    """Adds `--seeds`, by default 0, 1 ... `count` - 1; `of` says of what they are."""
    default = list(range(count))
    text = f"seeds of {of}, 0 to {LARGEST_SEED} (default {' '.join(map(str, default))})"
    seed = whole(0, LARGEST_SEED)
    parser.add_argument("--seeds", type=seed, nargs="+", default=default, help=text)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Adds `--set KEY=VALUE`, which may be given several times."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a value of the config, such as training.iterations=10 (YAML syntax); may be "
        "given several times; `dexgrasp config keys` lists all",
    )


def add_config(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds `--config` and `--set`; `text` says what the config is used for."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=text)
    add_overrides(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")


def _not(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
