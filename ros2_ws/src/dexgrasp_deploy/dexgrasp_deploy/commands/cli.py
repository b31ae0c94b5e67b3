"""The `dexgrasp` command: finds the module of a subcommand and runs it."""

import difflib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from dexgrasp_sim.stop_signals import stop_signals
from dexgrasp_sim.streams import lasting_streams

OUTPUT_LOST = 1
USAGE_ERROR = 2
INTERRUPTED = 130


class Command(NamedTuple):
    """A subcommand: its module has `add_arguments(parser)` and `run(args) -> int`."""

    module: str
    help: str


COMMANDS = {
    "demo": Command(
        "dexgrasp_deploy.commands.demo",
        "deploy the shipped policy in simulation, train another, compare",
    ),
    "train": Command("dexgrasp_learner.commands.train", "train a policy in simulation"),
    "distill": Command("dexgrasp_learner.commands.distill", "train a student from a teacher"),
    "evaluate": Command("dexgrasp_learner.commands.evaluate", "measure the success of policies"),
    "export": Command(
        "dexgrasp_learner.commands.export", "make a policy bundle from a checkpoint"
    ),
    "config": Command(
        "dexgrasp_learner.commands.configuration", "show the values or list the keys of a config"
    ),
    "inspect": Command(
        "dexgrasp_learner.commands.inspection", "describe the robot, the observations or a bundle"
    ),
    "render": Command(
        "dexgrasp_learner.commands.contact_sheet", "show what the simulated cameras see"
    ),
    "view": Command(
        "dexgrasp_learner.commands.view", "watch a policy, a training or a robot in the browser"
    ),
    "up": Command(
        "dexgrasp_deploy.commands.up",
        "start the ROS nodes of a robot or of a run",
    ),
    "calibrate": Command(
        "dexgrasp_deploy.commands.calibrate", "find the cameras' lenses and where they are"
    ),
    "drivers": Command(
        "dexgrasp_deploy.commands.drivers", "list the drivers of arms, hands and cameras"
    ),
    "replay": Command(
        "dexgrasp_deploy.commands.replay", "run a policy again on a recording of a robot"
    ),
    "latency": Command(
        "dexgrasp_deploy.commands.latency", "show a robot's delays, or train with them"
    ),
    "plan-capacity": Command(
        "dexgrasp_learner.commands.plan_capacity", "predict how many environments fit on GPUs"
    ),
    "bench": Command("dexgrasp_deploy.commands.bench", "measure speed and latency"),
    "doctor": Command(
        "dexgrasp_deploy.commands.doctor", "check this machine and the installation"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    A reader of its output that leaves, such as `head`, changes nothing: the command goes on, and
    what it prints is lost. It has the same exit code then.

    Args:
        argv: Arguments after the program's name; None for those of this process.

    Returns:
        Exit code: the subcommand's own, 1 if its results could not be written, 2 for a wrong
        argument or config, 130 after SIGINT, SIGTERM or SIGHUP (a training has then written a
        checkpoint).
    """
    with stop_signals(), lasting_streams() as output:
        code = _checked(argv)
        sys.stdout.flush()
        if output is not None and output.failure is not None:
            print(f"dexgrasp: results are lost: {output.failure.strerror}", file=sys.stderr)
            code = code or OUTPUT_LOST
    gc.freeze()  # else the end of the process frees all modules, which takes a second
    return code


def _checked(argv: Sequence[str] | None) -> int:
    """Runs one subcommand; a wrong config and an interruption become exit codes."""
    # read when torch starts its threads: busy waiting between parallel regions makes an update ten
    # times slower as soon as another process wants a core
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else USAGE_ERROR
    if arguments[0] == "--version":
        from dexgrasp_sim.version import version_line

        print(version_line())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"dexgrasp: no command {name!r}; {_suggestion(name)}", file=sys.stderr)
        return USAGE_ERROR
    try:
        return _run(name, rest)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ValueError as error:
        if not _is_config_error(error):
            raise
        print(f"dexgrasp {name}: {error}", file=sys.stderr)
        return USAGE_ERROR


def _run(name: str, arguments: list[str]) -> int:
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    from dexgrasp_sim.arguments import Parser  # not at the top: as below

    parser = Parser(prog=f"dexgrasp {name}", description=command.help)
    module.add_arguments(parser)
    return module.run(parser.parse_args(arguments))


def _is_config_error(error: ValueError) -> bool:
    from dexgrasp_sim.config import ConfigError  # not at the top: the overview needs no pydantic

    return isinstance(error, ConfigError)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    rows = (f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    return "\n".join(
        [
            "usage: dexgrasp <command> [arguments]     dexgrasp <command> --help",
            "       dexgrasp --version",
            "",
            "Learns dexterous grasping in simulation and runs the policy on a robot.",
            "",
            *rows,
        ]
    )


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    known = ", ".join(COMMANDS)
    return f"did you mean {near[0]!r}?" if near else f"there are: {known}"


if __name__ == "__main__":
    sys.exit(main())
