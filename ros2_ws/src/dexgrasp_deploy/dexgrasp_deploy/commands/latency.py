"""`dexgrasp latency`: the delays of a robot, and a training config that has them."""

import argparse
import json
from pathlib import Path
from typing import Any

from dexgrasp_deploy.control.telemetry.latency import Latencies
from dexgrasp_deploy.control.telemetry.training_latency import training_latency
from dexgrasp_sim.arguments import add_json, number
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.yaml_file import as_yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp latency`."""
    parser.add_argument(
        "file", type=Path, help="recording, JSON of `latency_file`, or of `dexgrasp up --json`"
    )
    parser.add_argument("--out", type=Path, help="write a training config with these delays")
    parser.add_argument("--base", type=Path, help="the config that the new one is based on")
    parser.add_argument(
        "--reaction-s",
        type=number(0.0, 10.0),
        default=0.0,
        help="from a command to the first motion of the joints, which no topic shows",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the report; writes the config; 0."""
    if args.out is not None and args.out.exists():
        raise ConfigError(f"--out {args.out}: exists already; give another name")
    latencies = read(args.file)
    training = training_latency(latencies, args.reaction_s)
    if args.out is not None:
        base = {} if args.base is None else {"base": str(args.base.resolve())}
        try:
            args.out.write_text(as_yaml({**base, "task": {"latency": training}}))
        except OSError as error:
            raise ConfigError(f"--out {args.out}: cannot be written ({error.strerror})") from None
    if args.json:
        print(json.dumps({**latencies.as_dict(), "task": {"latency": training}}))
    else:
        print(latencies.table())
        print(as_yaml({"task": {"latency": training}}).rstrip())
    return 0


def read(path: Path) -> Latencies:
    """The latencies in a file or a recording.

    Raises:
        ConfigError: There are none.
    """
    if path.is_dir():
        from dexgrasp_deploy.recording.reading import read_latencies  # not needed for JSON

        text = read_latencies(path)
        if not text:
            raise ConfigError(f"{path}: no episode ended in this recording, so it has no report")
        return _parse(text, path)
    try:
        return _parse(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text; give a recording's folder or JSON") from None


def _parse(text: str, path: Path) -> Latencies:
    try:
        values: Any = json.loads(text)
        if isinstance(values, dict) and isinstance(values.get("latency"), dict):
            values = values["latency"]
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        return Latencies.from_dict(values)
    except ValueError as error:
        raise ConfigError(f"{path}: holds no latency report: {error}") from None
