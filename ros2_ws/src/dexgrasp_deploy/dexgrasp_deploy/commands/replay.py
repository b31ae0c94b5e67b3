"""`dexgrasp replay`: runs a policy again on a recording and compares its actions."""

import argparse
import json
from pathlib import Path
from typing import Any

from dexgrasp_sim.arguments import add_json, number
from dexgrasp_sim.config import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp replay`."""
    parser.add_argument("recording", type=Path, help="folder of a recording or a black box")
    parser.add_argument("--bundle", type=Path, required=True, help="policy bundle folder")
    parser.add_argument(
        "--tolerance",
        type=number(0.0, 2.0),
        default=1e-4,
        help="difference of an action's element above which a step counts as different "
        "(default %(default)s: processors differ by less)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the differences; 0 when all steps were compared, whatever they are."""
    # imported here: these take seconds
    from dexgrasp_deploy.control.episode import UnfitInput
    from dexgrasp_deploy.control.sensing.image_message import ImageError
    from dexgrasp_deploy.recording.replay import Replay
    from dexgrasp_learner.storage.bundle import load_bundle

    bundle = load_bundle(args.bundle)
    try:
        recording, comparisons = Replay(bundle).run(args.recording)
    except (UnfitInput, ImageError) as error:
        raise ConfigError(f"{args.recording}: does not fit the policy: {error}") from None
    report = {
        "recording": str(args.recording),
        "recorded_bundle": recording.bundle_id,
        "bundle": bundle.manifest.bundle_id,
        "tolerance": args.tolerance,
        "incomplete_steps": recording.incomplete,
        "episodes": [each.as_dict(args.tolerance) for each in comparisons],
    }
    report["max"] = max(each["max"] for each in report["episodes"])
    print(json.dumps(report) if args.json else _table(report))
    return 0


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"recorded with {report['recorded_bundle']}, replayed with {report['bundle']}",
        "episode  steps   max |da|  mean |da|  first step that differs   max target, rad",
    ]
    for number_, each in enumerate(report["episodes"], 1):
        first = each["first_difference"]
        where = "none"
        if first is not None:
            where = f"{first} ({each['largest_element'][first - 1]})"
        lines.append(
            f"{number_:7}{each['steps']:7}{each['max']:11.2g}{each['mean']:11.2g}  "
            f"{where:24}{each['max_target_rad']:10.2g}"
        )
        lines += _notes(each)
    if report["incomplete_steps"]:
        lines.append(f"{report['incomplete_steps']} steps are left out: parts are missing")
    return "\n".join(lines)


def _notes(episode: dict[str, Any]) -> list[str]:
    notes = []
    if episode["without_image"]:
        notes.append(f"{episode['without_image']} steps without their image")
    if not episode["complete"]:
        notes.append("begins after the first step: the policy's memory is not that of the robot")
    return [f"        {note}" for note in notes]
