"""Requests to a run, from another thread, and their answers."""

import threading
from dataclasses import replace
from pathlib import Path

from dexgrasp_learner.run.control import RunControl, RunState

TIMEOUT_S = 30.0


def test_a_new_run_is_starting_and_neither_paused_nor_stopping():
    control = RunControl()
    assert control.status.state is RunState.STARTING
    assert not control.paused and not control.stopping
    control.wait_while_paused(TIMEOUT_S)  # returns at once


def test_pause_and_resume():
    control = RunControl()
    control.pause()
    assert control.paused
    control.wait_while_paused(0.001)  # returns although nobody resumes
    control.resume()
    assert not control.paused


def test_stop_ends_a_pause():
    control = RunControl()
    control.pause()
    waiting = threading.Thread(target=control.wait_while_paused, args=(TIMEOUT_S,))
    waiting.start()
    control.stop()
    waiting.join(TIMEOUT_S)
    assert not waiting.is_alive()
    assert control.stopping and not control.paused


def test_each_request_to_save_is_taken_once():
    control = RunControl()
    assert not control.take_save_request()
    assert control.save(timeout_s=0.001) == ""
    assert control.take_save_request()
    assert not control.take_save_request()


def test_save_gets_the_path_of_the_checkpoint_written_after_it():
    control = RunControl()
    answers = []
    stop = threading.Event()

    def run():
        count = 0
        while not stop.is_set():
            control.wait_while_paused(0.001)
            if control.take_save_request():
                count += 1
                path = Path(f"checkpoint_{count}")
                control.status = replace(control.status, checkpoint=str(path))
                control.saved(path)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(3):
        answers.append(control.save(TIMEOUT_S))
    stop.set()
    thread.join(TIMEOUT_S)
    assert answers == ["checkpoint_1", "checkpoint_2", "checkpoint_3"]


def test_the_states_are_those_of_the_message():
    message = Path(__file__).parents[2] / "dexgrasp_msgs" / "msg" / "LearnerStatus.msg"
    found = {}
    for line in message.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "uint8" and "=" in rest:
            name, _, value = rest.split("#")[0].partition("=")
            found[name.strip()] = int(value)
    assert found
    for state in RunState:
        assert found[next(name for name in found if name.endswith(state.name))] == state.value
