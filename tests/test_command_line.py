"""What holds for every option of every command."""

import argparse
import importlib

import pytest

from dexgrasp_deploy.commands.cli import COMMANDS, main
from dexgrasp_sim.arguments import Parser, number, resolution, whole
from dexgrasp_sim.config import LARGEST_SEED
from dexgrasp_sim.worker.__main__ import main as worker_main


def parsers():
    """Name and parser of every command and of their subcommands."""
    for name, command in COMMANDS.items():
        parser = Parser(prog=f"dexgrasp {name}")
        importlib.import_module(command.module).add_arguments(parser)
        yield from with_subcommands(name, parser)


def with_subcommands(name, parser):
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, subparser in action.choices.items():
                yield from with_subcommands(f"{name} {inner}", subparser)


PARSERS = dict(parsers())
OPTIONS = [
    pytest.param(action, id=f"{name} {'/'.join(action.option_strings) or action.dest}")
    for name, parser in PARSERS.items()
    for action in parser._actions
    if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
]


def test_the_walk_finds_subcommands_and_many_options():
    assert {"up train", "up sim", "bench faults", "config keys"} <= set(PARSERS)
    assert len(OPTIONS) > 100


@pytest.mark.parametrize("action", OPTIONS)
def test_every_option_has_a_help_text(action):
    assert action.help and len(action.help.split()) >= 2


@pytest.mark.parametrize("action", OPTIONS)
def test_every_number_has_a_range(action):
    """`int` and `float` take nan, infinity, and numbers that cannot be."""
    assert action.type not in (int, float)


@pytest.mark.parametrize(
    "action", [option for option in OPTIONS if option.values[0].dest == "seed"]
)
def test_every_seed_has_the_range_of_the_config(action):
    assert action.type(str(LARGEST_SEED)) == LARGEST_SEED and str(LARGEST_SEED) in action.help
    for text in ("-1", str(LARGEST_SEED + 1), str(2**64 - 1), "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match=rf"from 0 to {LARGEST_SEED}"):
            action.type(text)


@pytest.mark.parametrize("name", [name for name in PARSERS if " " not in name])
def test_every_command_describes_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert COMMANDS[name].help in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan-capacity", "--gpu-memory-gb", "nan"], "'nan' is not a number above 0 up to 10000"),
        (["plan-capacity", "--gpu-memory-gb", "inf"], "'inf' is not a number above 0"),
        (["plan-capacity", "--gpu-memory-gb", "1e5"], "'1e5' is not a number above 0"),
        (["plan-capacity", "--gpu-memory-gb", "0"], "'0' is not a number above 0"),
        (["plan-capacity", "--gpus", "1"], "'1' is not a whole number from 2 to 1024"),
        (["plan-capacity", "--horizon", "0"], "'0' is not a whole number from 1"),
        (["plan-capacity", "--resolution", "160"], "'160' is not of the form WIDTHxHEIGHT"),
        (["evaluate", "scripted", "--difficulty", "nan"], "'nan' is not a number from 0 up to 1"),
        (["evaluate", "scripted", "--difficulty", "1.5"], "'1.5' is not a number from 0 up to 1"),
        (["evaluate", "scripted", "--episodes", "0"], "'0' is not a whole number from 1 up"),
        (["evaluate", "scripted", "--threads", "0"], "'0' is not a whole number from 1 to 1024"),
        (["evaluate", "scripted", "--seed", "-1"], f"from 0 to {LARGEST_SEED}"),
        (["train", "x.yaml", "--peer-timeout-s", "inf"], "'inf' is not a number above 0"),
        (["render", "--out", "x", "--envs", "0"], "'0' is not a whole number from 1 to 64"),
        (["demo", "--minutes", "nan"], "'nan' is not a number above 0"),
        (["up", "sim", "--bundle", "x", "--episodes", "-1"], "'-1' is not a whole number from 0"),
        (["up", "sim", "--bundle", "x", "--seed", str(2**64 - 1)], f"from 0 to {LARGEST_SEED}"),
        (["view", "--env", "-1"], "'-1' is not a whole number from 0 up"),
        (["view", "--envs", "0"], "'0' is not a whole number from 1 to 1024"),
        (["view", "--robot", "--domain", "233"], "'233' is not a whole number from 0 to 232"),
        (["view", "--port", "65536"], "'65536' is not a whole number from 0 to 65535"),
        (["bench", "faults", "--timeout-s", "nan"], "'nan' is not a number above 0"),
        (["train", "x.yaml", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["evaluate"], "the following arguments are required: POLICY"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dexgrasp {arguments[0]}") and words in line and "--help" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--index", "-1"], "'-1' is not a whole number from 0 up"),
        (["--index", "0", "--wait-s", "nan"], "'nan' is not a number from 0 up to 1e+06"),
        (["--index", "0", "--retry", "1.5"], "'1.5' is not a whole number from 0 up"),
    ],
)
def test_a_worker_refuses_a_wrong_number_in_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        worker_main(["--learner", "host:1", *arguments])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_limits_belong_to_the_range_or_not():
    assert whole(2, 4)("2") == 2 and whole(2, 4)("4") == 4 and whole(0)("9" * 30) == 10**30 - 1
    assert number(0.0, 1.0)("0") == 0.0 and number(0.0, 1.0)("1") == 1.0
    assert number(above=0.0)("1e-9") == 1e-9 and number()("-2.5") == -2.5
    assert resolution("160x120") == (160, 120)
    for read, text in ((whole(2, 4), "5"), (whole(2, 4), "1"), (number(above=0.0), "0")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not"):
            read(text)
