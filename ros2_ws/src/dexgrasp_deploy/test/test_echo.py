"""A driver's echo of commands shows whether it obeys."""

from dexgrasp_deploy.control.sensing.echo import CommandEcho


def commanded(echo, until_s, period_s=0.02):
    """One joint that moves by 1 rad/s, commanded every 20 ms."""
    steps = round(until_s / period_s)
    for step in range(steps + 1):
        echo.sent({"a": step * period_s, "b": 0.5}, step * period_s)


def test_driver_that_obeys_late_is_fine_and_one_that_is_too_late_is_not():
    echo = CommandEcho(max_delay_s=0.3)
    commanded(echo, 1.0)
    echo.heard({"a": 0.74, "b": 0.5}, 1.0)
    assert echo.problem(1.0) == ""
    echo.heard({"a": 0.58, "b": 0.5}, 1.0)
    assert "it echoes a 0.1 rad from every command" in echo.problem(1.0)
    echo.heard({"a": 1.0, "b": 0.5}, 1.02)
    assert echo.problem(1.02) == "", "it obeys again"


def test_a_reader_that_is_late_does_not_take_the_driver_for_late():
    echo = CommandEcho(max_delay_s=0.3)
    commanded(echo, 1.5)
    echo.heard({"a": 0.74, "b": 0.5}, 0.8)
    assert echo.problem(1.5) == ""


def test_somebody_elses_command_is_noticed_and_other_names_too():
    echo = CommandEcho(max_delay_s=0.3)
    commanded(echo, 1.0)
    echo.heard({"a": 1.0, "b": -0.5}, 1.0)
    assert "echoes b" in echo.problem(1.0)
    echo.heard({"c": 1.0}, 1.0)
    assert "no joint" in echo.problem(1.0)


def test_nothing_is_judged_before_a_command_is_due_and_after_the_last_one():
    echo = CommandEcho(max_delay_s=0.3)
    echo.heard({"a": 7.0}, 0.0)
    assert echo.problem(0.0) == "", "nothing was sent"
    commanded(echo, 0.2)
    echo.heard({"a": 7.0}, 0.2)
    assert echo.problem(0.2) == "", "the driver has time"
    commanded(echo, 1.0)
    echo.heard({"a": 7.0}, 1.0)
    assert echo.problem(1.0) and echo.problem(1.4) == "", "the robot is not commanded any more"
    echo.sent({"a": 0.0}, 1.4)
    assert echo.problem(1.4) == "", "a new beginning"
