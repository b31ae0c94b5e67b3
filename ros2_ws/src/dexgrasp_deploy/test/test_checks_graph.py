"""What `dexgrasp doctor --robot` says about recorded ROS graphs."""

from dataclasses import replace

import pytest

from dexgrasp_deploy.checks import graph
from dexgrasp_deploy.checks.deployment import read_deployment
from dexgrasp_deploy.checks.finding import Outcome
from dexgrasp_deploy.checks.graph_facts import (
    Endpoint,
    GraphFacts,
    JointLimits,
    Stream,
    TopicFacts,
)
from dexgrasp_deploy.checks.topics import topic_uses
from dexgrasp_deploy.checks.urdf_limits import urdf_limits
from dexgrasp_sim.config import ConfigError, parse_config, to_dict

OK, WARNING, FAILED, UNKNOWN = Outcome.OK, Outcome.WARNING, Outcome.FAILED, Outcome.UNKNOWN
STATES, COMMANDS = "/lbr/joint_states", "/lbr/forward_position_controller/commands"
DEPTH = "/camera/camera/depth/image_rect_raw"
NAMES = tuple(f"lbr_A{i}" for i in range(1, 8))
ARRAY, JOINTS = "std_msgs/msg/Float64MultiArray", "sensor_msgs/msg/JointState"
CONTROLLER = Endpoint("/lbr/controller", ARRAY, "reliable", "volatile")
BROADCASTER = Endpoint("/lbr/broadcaster", JOINTS, "reliable", "volatile")
CAMERA = Endpoint("/camera/camera", "sensor_msgs/msg/Image", "best_effort", "volatile")
FAST = Stream(
    count=300,
    seconds=2.99,
    longest_gap_s=0.012,
    oldest_s=0.004,
    newest_s=0.001,
    stamped=True,
    names=NAMES,
    position=(0.1,) * 7,
)
IMAGES = replace(FAST, count=90, seconds=2.97, names=(), position=(), text="640x480 16UC1")


@pytest.fixture(scope="module")
def deployment(bundle_folder):
    drivers = {"arm": "lbr", "hand": "mock", "camera": "realsense_node"}
    return read_deployment(bundle_folder, None, drivers, None)


@pytest.fixture(scope="module")
def uses(deployment):
    return list(topic_uses(deployment))


def facts(state=FAST, image=IMAGES, publisher=BROADCASTER, taker=CONTROLLER, **changes):
    topics = {
        STATES: TopicFacts((publisher,), (), (state,) if state else ()),
        COMMANDS: TopicFacts((), (taker,) if taker else ()),
        DEPTH: TopicFacts((CAMERA,), (), (image,) if image else ()),
    }
    return GraphFacts(nodes=("/lbr/controller",), topics={**topics, **changes.pop("topics", {})})


def outcome(findings, check):
    return [each.outcome for each in findings if each.check == check]


def text_of(findings, wanted):
    return "; ".join(f"{each.text}; {each.remedy}" for each in findings if each.outcome is wanted)


def test_a_healthy_robot_has_no_complaint(uses, deployment):
    seen = facts()
    found = [*graph.domain(seen), *graph.commanders(seen, uses), *graph.clock_jumps(seen)]
    found += [*graph.rates(seen, uses, deployment), *graph.joints(seen, deployment)]
    assert not text_of(found, FAILED) and not text_of(found, WARNING)
    unseen = [each.check for each in found if each.outcome is UNKNOWN]
    assert unseen == ["arm limits", "hand joints"], "what was not looked at is not called good"
    ends = list(graph.ends(seen, uses))
    assert outcome(ends, "arm state") == outcome(ends, "arm command") == [OK]
    assert outcome(ends, "camera info") == [FAILED], "nobody publishes it"


def test_facts_go_through_json():
    assert parse_config(GraphFacts, to_dict(facts())) == facts()


@pytest.mark.parametrize(
    ("node", "topic", "expected"),
    [
        ("/teleop", COMMANDS, FAILED),
        ("/robot_driver_node", COMMANDS, OK),
        ("/dexgrasp/policy_node", "/dexgrasp/joint_command", OK),
        ("/teleop", "/dexgrasp/joint_command", FAILED),
    ],
)
def test_who_else_commands_is_named(uses, node, topic, expected):
    publisher = Endpoint(node, ARRAY, "reliable", "volatile")
    found = list(graph.commanders(facts(topics={topic: TopicFacts((publisher,))}), uses))
    assert outcome(found, f"commanders of {topic}") == [expected]
    if expected is FAILED:
        assert f"{node} publishes there; stop it" in text_of(found, FAILED)


def test_our_own_node_twice_is_one_too_many(uses):
    publisher = Endpoint("/robot_driver_node", ARRAY, "reliable", "volatile")
    found = graph.commanders(facts(topics={COMMANDS: TopicFacts((publisher,) * 2)}), uses)
    assert "two nodes robot_driver_node" in text_of(found, FAILED)


def test_an_empty_domain_tells_nothing_about_commanders(uses):
    found = [*graph.domain(GraphFacts()), *graph.commanders(GraphFacts(), uses)]
    assert "ROS_DOMAIN_ID" in text_of(found, WARNING)
    assert not [each for each in found if each.outcome is OK]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"taker": None}, "nobody takes commands on /lbr"),
        ({"taker": replace(CONTROLLER, type=JOINTS)}, f"has the type {JOINTS}, not {ARRAY}"),
        (
            {"taker": replace(CONTROLLER, durability="transient_local")},
            "published volatile, subscribed transient local",
        ),
        ({"publisher": replace(BROADCASTER, type=ARRAY)}, f"has the type {ARRAY}, not {JOINTS}"),
    ],
)
def test_ends_that_do_not_fit_are_named(uses, changes, words):
    assert words in text_of(graph.ends(facts(**changes), uses), FAILED)


def test_a_reader_that_asks_for_more_than_is_offered(bundle_folder, tmp_path):
    params = tmp_path / "robot.yaml"
    params.write_text(
        "robot_driver_node: {ros__parameters: {arm.driver: lbr, "
        "arm.state.qos.reliability: reliable}}"
    )
    wanted = read_deployment(None, params, dict.fromkeys(("arm", "hand", "camera")), None)
    seen = facts(publisher=replace(BROADCASTER, reliability="best_effort"))
    found = text_of(graph.ends(seen, list(topic_uses(wanted))), FAILED)
    assert "published best effort, subscribed reliable; set arm.state.qos" in found


@pytest.mark.parametrize(
    ("stream", "expected", "words"),
    [
        (replace(FAST, seconds=29.9, longest_gap_s=0.11), WARNING, "10.0 messages/s"),
        (replace(FAST, longest_gap_s=0.3), FAILED, "longest gap 300 ms, at most 200 ms"),
        (replace(FAST, newest_s=-30.0), FAILED, "ahead of this computer's clock"),
        (replace(FAST, newest_s=5.0, oldest_s=6.0), FAILED, "at most 200 ms"),
        (replace(FAST, stamped=False), UNKNOWN, "messages have no stamps"),
        (None, FAILED, f"nothing arrives on {STATES}"),
    ],
    ids=["slow", "gap", "ahead", "old", "no stamps", "silent"],
)
def test_rates_and_stamps(uses, deployment, stream, expected, words):
    found = list(graph.rates(facts(state=stream), uses, deployment))
    assert words in text_of(found, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"position": (0.0, 0.0, 0.0, -90.0, 0.0, 0.0, 0.0)}, "is it in degrees?"),
        ({"position": (0.0,) * 6}, "7 names and 6 values of position"),
        ({"names": (*NAMES[:6], "lbr_A8")}, "lbr_A7 missing"),
        ({"names": ("a",) * 7}, "the messages on /lbr/joint_states have a, a"),
        ({"one_publisher": False}, "two nodes publish the same joints"),
        ({"position": (float("nan"),) + (0.0,) * 6}, "measures nan"),
    ],
)
def test_joints_that_cannot_be_the_robots_are_named(deployment, change, words):
    found = graph.joints(facts(state=replace(FAST, **change)), deployment)
    assert words in text_of(found, FAILED)


def test_limits_that_the_robot_publishes_are_compared(deployment, robot):
    """The URDF of the driver has its own names."""
    own = zip(NAMES, robot.lower.tolist(), robot.upper.tolist())
    limits = {name: JointLimits(lower, upper, 1.0) for name, lower, upper in own}
    seen = replace(facts(), limits=limits)
    assert outcome(graph.joints(seen, deployment), "arm limits") == [OK]
    narrow = replace(facts(), limits={**limits, "lbr_A2": JointLimits(-1.0, 1.0, 1.0)})
    assert "lbr_A2 from -1 to 1 rad" in text_of(graph.joints(narrow, deployment), WARNING)


def test_limits_of_a_urdf(robot):
    found = urdf_limits(robot.urdf_path.read_text())
    for name, lower, upper in zip(robot.joint_names, robot.lower.tolist(), robot.upper.tolist()):
        assert (found[name].lower, found[name].upper) == pytest.approx((lower, upper))
    assert urdf_limits("no urdf") == {}


def test_jumps_of_the_clock():
    assert outcome(graph.clock_jumps(GraphFacts(clock_jump_s=0.5)), "clock jumps") == [WARNING]


@pytest.mark.parametrize(
    ("kind", "name", "parameters", "words"),
    [
        ("arm", "lbr", "arm.sign: [1, -1]", "sign has 2 entries"),
        ("arm", "lbr", "arm.topic: /x", "unknown key `topic`"),
        ("camera", "realsense_node", "camera.depth.topic: /x", "unknown key `depth.topic`"),
    ],
)
def test_wrong_parameters_of_drivers_are_refused(tmp_path, kind, name, parameters, words):
    node = "camera_node" if kind == "camera" else "robot_driver_node"
    (tmp_path / "p.yaml").write_text(f"{node}: {{ros__parameters: {{{parameters}}}}}")
    drivers = {"arm": None, "hand": None, "camera": None, kind: name}
    with pytest.raises(ConfigError, match=words):
        list(topic_uses(read_deployment(None, tmp_path / "p.yaml", drivers, None)))
