import importlib
import subprocess
import sys

import pytest

from dexgrasp_deploy.commands.cli import COMMANDS, Command, main
from dexgrasp_sim.config import ConfigError


@pytest.fixture
def command(monkeypatch):
    """Registers a command "probe" whose `run` raises or returns what the test gives."""

    def register(outcome) -> None:
        def run(args):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome(args)

        module = type(sys)("dexgrasp_probe")
        module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=1)
        module.run = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "probe", Command(module.__name__, "for tests"))

    return register


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_what_the_dispatcher_calls(name):
    module = importlib.import_module(COMMANDS[name].module)
    assert callable(module.add_arguments) and callable(module.run)


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in shown and command.help in shown


def test_no_command_is_a_usage_error(capsys):
    assert main([]) == 2
    assert "usage: dexgrasp" in capsys.readouterr().err


def test_help_loads_neither_torch_nor_pydantic():
    code = (
        "import sys; from dexgrasp_deploy.commands.cli import main; main(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pydantic', 'numpy', 'yaml')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_misspelt_command_gets_a_suggestion(capsys):
    assert main(["tarin"]) == 2
    assert capsys.readouterr().err == "dexgrasp: no command 'tarin'; did you mean 'train'?\n"


def test_an_unknown_command_gets_the_list(capsys):
    assert main(["xyzzy"]) == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("xyzzy", *COMMANDS))


def test_the_command_gets_its_arguments_and_gives_the_exit_code(command):
    command(lambda args: args.number)
    assert main(["probe", "--number", "7"]) == 7


def test_a_wrong_argument_exits_with_2(command, capsys):
    command(lambda args: 0)
    with pytest.raises(SystemExit) as end:
        main(["probe", "--number", "x"])
    assert end.value.code == 2
    assert "dexgrasp probe: error:" in capsys.readouterr().err


def test_a_config_error_is_one_line_and_exit_code_2(command, capsys):
    command(ConfigError("`a` = 3: at most 2; lower it"))
    assert main(["probe"]) == 2
    assert capsys.readouterr().err == "dexgrasp probe: `a` = 3: at most 2; lower it\n"


def test_any_other_error_keeps_its_traceback(command):
    command(ValueError("a defect"))
    with pytest.raises(ValueError, match="a defect"):
        main(["probe"])


def test_ctrl_c_exits_with_130(command):
    command(KeyboardInterrupt())
    assert main(["probe"]) == 130
