"""Our messages, services and actions as ROS generates and transports them."""

import math
from pathlib import Path

import pytest
from rclpy.serialization import deserialize_message, serialize_message

from dexgrasp_msgs.action import Grasp
from dexgrasp_msgs.msg import LearnerStatus, PolicyStatus, SimWorkerStatus
from dexgrasp_msgs.srv import LoadPolicy, SetRunState

INTERFACES = sorted(
    file
    for folder in ("msg", "srv", "action")
    for file in (Path(__file__).parents[1] / "ros2_ws/src/dexgrasp_msgs" / folder).iterdir()
)
SELF_EXPLAINING = {"run_id", "success", "message", "error_msg", "workers_alive"}


def constants(message: type) -> dict[str, int]:
    return {name: getattr(message, name) for name in dir(type(message)) if name[0].isupper()}


@pytest.mark.parametrize("file", INTERFACES, ids=lambda path: path.name)
def test_every_field_is_explained(file):
    for line in file.read_text().splitlines():
        code, _, comment = line.partition("#")
        if code.strip() in ("", "---") or "=" in code:
            continue
        name = code.split()[1]
        assert comment.strip() or name in SELF_EXPLAINING or "fraction" in name, line


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (SimWorkerStatus, {"STARTING", "RUNNING", "PAUSED", "FINISHED", "FAILED"}),
        (LearnerStatus, {"STARTING", "RUNNING", "PAUSED", "STOPPING", "FINISHED", "FAILED"}),
        (PolicyStatus, {"IDLE", "RUNNING", "HOLD", "FAULT"}),
        (SetRunState.Request, {"PAUSE", "RESUME", "STOP"}),
        (LoadPolicy.Response, {"SUCCESS", "NOT_FOUND", "INVALID", "INCOMPATIBLE", "BUSY"}),
        (Grasp.Goal, {"EXECUTE", "SHADOW"}),
        (Grasp.Feedback, {"STARTING", "REACHING", "LIFTING", "HOLDING", "STOPPING"}),
    ],
)
def test_enums_are_numbered_from_zero(message, names):
    values = {name: getattr(message, name) for name in names}
    assert sorted(values.values()) == list(range(len(names)))
    assert set(constants(message)) == names


def test_success_is_error_code_zero():
    assert Grasp.Result.SUCCESS == 0
    assert LoadPolicy.Response.SUCCESS == 0
    assert len(set(constants(Grasp.Result).values())) == len(constants(Grasp.Result)) == 8


def test_a_message_comes_back_as_it_was():
    sent = PolicyStatus(state=PolicyStatus.FAULT, step=2**63, action=[0.5, -1.0], message="µ")
    sent.predicted_object_position.x = math.inf
    sent.observation_age_s = 1e-9
    assert deserialize_message(serialize_message(sent), PolicyStatus) == sent


def test_a_wrong_type_is_refused_in_tests():
    with pytest.raises(AssertionError, match="float"):
        LearnerStatus(eta_s="soon")
