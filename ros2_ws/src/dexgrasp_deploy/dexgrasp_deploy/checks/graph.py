"""Judges what was seen on a ROS graph against what the drivers and the policy need."""

from collections.abc import Iterable, Iterator, Sequence

from dexgrasp_deploy.checks.deployment import Deployment
from dexgrasp_deploy.checks.finding import Finding, failed, ok, unknown, warning
from dexgrasp_deploy.checks.graph_facts import Endpoint, GraphFacts, Stream, TopicFacts
from dexgrasp_deploy.checks.topics import TopicUse, joint_config
from dexgrasp_deploy.drivers.base import JointSample
from dexgrasp_deploy.drivers.joint_config import JointTopicsConfig, qos_mismatch
from dexgrasp_deploy.drivers.joint_map import JointMap, JointStateError, check_plausible
from dexgrasp_sim.config import ConfigError

_OWN_COMMANDER = "policy_node"
_OWN_DRIVER = "robot_driver_node"
_MANY_LOST = 0.9
_JUMP_S = 0.01
"""The clock of a computer that is kept by a time server moves by less in some seconds."""
_SAME_LIMIT_RAD = 0.01
_SILENT = "is the device connected and on? Its node is there, its messages are not"


def domain(facts: GraphFacts) -> Iterator[Finding]:
    """Where was looked, and who is there."""
    where = f"ROS domain {facts.domain}, discovery {facts.range or 'as set by the profile'}"
    if facts.nodes:
        shown = ", ".join(facts.nodes[:6]) + (", ..." if len(facts.nodes) > 6 else "")
        yield ok("ROS graph", f"{where}: {len(facts.nodes)} nodes: {shown}")
        return
    yield warning(
        "ROS graph",
        f"{where}: no other node",
        "start the robot's drivers; ROS_DOMAIN_ID must be theirs, and drivers on other computers "
        "need ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET",
    )


def clock_jumps(facts: GraphFacts) -> Iterator[Finding]:
    """Whether the time of day jumped while the graph was looked at."""
    text = f"moved by {1000 * facts.clock_jump_s:.1f} ms against the monotonic clock"
    if facts.clock_jump_s > _JUMP_S:
        remedy = "let it be slewed, not stepped (chrony: no makestep after the start)"
        yield warning("clock jumps", text, remedy)
    else:
        yield ok("clock jumps", text)


def commanders(facts: GraphFacts, uses: Sequence[TopicUse]) -> Iterator[Finding]:
    """Who else commands the robot: nobody may."""
    allowed = {use.topic: _OWN_DRIVER for use in uses if use.role == "command"}
    own = {name: _OWN_COMMANDER for name in facts.topics if name.endswith("/joint_command")}
    for topic, publisher in {**own, **allowed}.items():
        found = facts.topics.get(topic, TopicFacts()).publishers
        others = [each.node for each in found if _short(each) != publisher]
        twice = sum(_short(each) == publisher for each in found) > 1
        if others or twice:
            who = ", ".join(sorted(others) or [f"two nodes {publisher}"])
            yield failed(f"commanders of {topic}", f"{who} publishes there", "stop it")
        elif not facts.nodes:
            yield unknown(f"commanders of {topic}", "no other node is in this domain")
        else:
            yield ok(f"commanders of {topic}", "nobody else")


def ends(facts: GraphFacts, uses: Sequence[TopicUse]) -> Iterator[Finding]:
    """Whether the other end of each topic is there, with our type and quality of service."""
    for use in uses:
        name, found = f"{use.kind} {use.role}", facts.topics.get(use.topic, TopicFacts())
        if "/srv/" in use.type:
            yield _service(name, use, facts)
            continue
        others = found.subscribers if use.role == "command" else found.publishers
        if not others:
            who = "takes commands" if use.role == "command" else "publishes"
            yield failed(
                name,
                f"nobody {who} on {use.topic}",
                "is the driver running, its controller active, and in this ROS domain?",
            )
            continue
        problems = [_why_unconnected(use, other) for other in others]
        if all(problems):
            yield failed(name, f"{use.topic}: {'; '.join(problems)}", _remedy(use))
        else:
            peers = ", ".join(sorted({other.node for other in others}))
            yield ok(name, f"{use.topic} of {peers}")


def _service(name: str, use: TopicUse, facts: GraphFacts) -> Finding:
    if use.topic in facts.services:
        return ok(name, f"the service {use.topic} is there; it was not called")
    return failed(name, f"no service {use.topic}", "is the driver running?")


def _why_unconnected(use: TopicUse, other: Endpoint) -> str:
    if other.type != use.type:
        return f"{other.node} has the type {other.type}, not {use.type}"
    theirs, ours = (other.reliability, other.durability), (use.reliability, use.durability)
    sides = (*ours, *theirs) if use.role == "command" else (*theirs, *ours)
    mismatch = qos_mismatch(*sides)
    return f"quality of service of {other.node}: {mismatch}" if mismatch else ""


def _remedy(use: TopicUse) -> str:
    qos = "qos" if use.kind == "camera" else f"{use.role}.qos"
    return f"set {use.kind}.{qos}.reliability and .durability, or the type, as that node has it"


def rates(
    facts: GraphFacts, uses: Sequence[TopicUse], deployment: Deployment
) -> Iterator[Finding]:
    """How often measurements come, how old their stamps are, against what the policy needs."""
    for use in uses:
        if use.role not in ("state", "image") or "/srv/" in use.type:
            continue
        found = facts.topics.get(use.topic, TopicFacts())
        streams = _own_streams(found.streams, use, deployment)
        if not streams:
            if found.publishers:
                yield failed(f"{use.kind} rate", f"nothing arrives on {use.topic}", _SILENT)
            continue
        limits = deployment.freshness
        most_s = limits.max_joint_age_s if use.role == "state" else limits.max_image_age_s
        for stream in streams:
            yield _rate(use, stream, deployment.rate_hz, most_s)
            yield _stamps(use, stream, most_s, limits.max_ahead_s)


def _own_streams(streams: Iterable[Stream], use: TopicUse, deployment: Deployment) -> list[Stream]:
    """Those of our device; others may share the topic."""
    config = joint_config(deployment, use.kind) if use.role == "state" else None
    wanted = set(config.joint_names) if config else set()
    return [each for each in streams if not wanted or wanted & set(each.names)]


def _rate(use: TopicUse, stream: Stream, needed_hz: float | None, most_s: float) -> Finding:
    name = f"{use.kind} rate"
    what = f" of {stream.text}" if stream.text else ""
    text = (
        f"{use.topic}: {stream.rate_hz:.1f} messages/s{what}, longest gap "
        f"{1000 * stream.longest_gap_s:.0f} ms"
    )
    if stream.count < 2:
        return failed(name, f"{use.topic}: {stream.count} message", _SILENT)
    if stream.longest_gap_s > most_s:
        remedy = "find what delays it: network, CPU, DDS shared memory, or the driver's rate"
        return failed(name, f"{text}, at most {1000 * most_s:.0f} ms are allowed", remedy)
    if needed_hz is None:
        return unknown(name, f"{text}; no bundle says what is needed", "give --bundle")
    if stream.rate_hz < _MANY_LOST * needed_hz:
        text = f"{text}; the policy acts {needed_hz:g} times a second and sees some twice"
        return warning(name, text, "raise the rate of the driver")
    return ok(name, f"{text}; the policy needs {needed_hz:g}")


def _stamps(use: TopicUse, stream: Stream, most_s: float, most_ahead_s: float) -> Finding:
    name = f"{use.kind} stamps"
    if not stream.stamped:
        return unknown(name, f"{use.topic}: messages have no stamps; their arrival counts")
    text = (
        f"{use.topic}: {1000 * stream.newest_s:.0f} to {1000 * stream.oldest_s:.0f} ms old on "
        "arrival"
    )
    key = f"{use.kind}.state.stamp" if use.role == "state" else f"{use.kind}.stamp"
    remedy = f"synchronise the clocks (chrony), or set {key} to arrival"
    if stream.newest_s < -most_ahead_s:
        return failed(name, f"{text}: ahead of this computer's clock", remedy)
    if stream.newest_s > most_s:
        return failed(name, f"{text}, at most {1000 * most_s:.0f} ms are allowed", remedy)
    return ok(name, text)


def joints(facts: GraphFacts, deployment: Deployment) -> Iterator[Finding]:
    """Whether measured joints can be those of the robot: names, lengths, units, limits."""
    for kind in ("arm", "hand"):
        name, chosen = f"{kind} joints", deployment.drivers[kind]
        config = joint_config(deployment, kind)
        if config is None:
            what = f"{chosen} is no driver on topics" if chosen else "no driver named"
            yield unknown(name, what, "" if chosen else f"give --{kind} or --params")
            continue
        yield from _measured(name, kind, config, facts, deployment)
        yield from _limits(f"{kind} limits", kind, config, facts, deployment)


def _measured(
    name: str, kind: str, config: JointTopicsConfig, facts: GraphFacts, deployment: Deployment
) -> Iterator[Finding]:
    robot = deployment.robot
    own = robot.arm_joints if kind == "arm" else robot.hand_joints
    try:
        joint_map = JointMap(config, own, kind)
    except ConfigError as error:
        yield failed(name, str(error))
        return
    found = facts.topics.get(config.state.topic, TopicFacts()).streams
    if not found:
        yield unknown(name, f"nothing was measured on {config.state.topic}")
        return
    streams = [each for each in found if set(config.joint_names) & set(each.names)]
    if not streams:
        there = ", ".join(found[0].names) or "no names"
        remedy = f"set {kind}.joint_names, or {kind}.state.topic"
        yield failed(name, f"the messages on {config.state.topic} have {there}", remedy)
        return
    if len(streams) > 1 or not streams[0].one_publisher:
        yield failed(
            name,
            f"two nodes publish the same joints on {config.state.topic}",
            "let one driver publish each joint",
        )
        return
    try:
        sample = _sample(joint_map, streams[0])
        check_plausible(sample, robot, kind)
    except (JointStateError, ConfigError) as error:
        yield failed(name, str(error))
        return
    yield ok(name, f"{len(own)} joints, all inside their limits")


def _sample(joint_map: JointMap, stream: Stream) -> JointSample:
    return joint_map.sample(
        stream.names, stream.position, stream.velocity, stream.effort, 0.0, 0.0
    )


def _limits(
    name: str, kind: str, config: JointTopicsConfig, facts: GraphFacts, deployment: Deployment
) -> Iterator[Finding]:
    """Limits in the URDF that the robot publishes against those of ours."""
    robot = deployment.robot
    count = len(config.joint_names)
    urdf_names = config.urdf_names or config.joint_names
    signs, offsets = config.sign or (1,) * count, config.offset_rad or (0.0,) * count
    own = dict(zip(robot.joint_names, zip(robot.lower.tolist(), robot.upper.tolist())))
    narrower, compared = [], 0
    for theirs, ours, sign, offset in zip(config.joint_names, urdf_names, signs, offsets):
        limits = facts.limits.get(theirs)
        if limits is None or ours not in own:
            continue
        compared += 1
        ends_rad = sorted(sign * end + offset for end in (limits.lower, limits.upper))
        lower, upper = own[ours]
        if lower < ends_rad[0] - _SAME_LIMIT_RAD or upper > ends_rad[1] + _SAME_LIMIT_RAD:
            narrower.append(
                f"{theirs} from {ends_rad[0]:.3g} to {ends_rad[1]:.3g} rad, here {lower:.3g} to "
                f"{upper:.3g}"
            )
    if not compared:
        yield unknown(name, "no robot_description with these joints is published")
    elif narrower:
        shown = "; ".join(narrower[:3]) + (" and others" if len(narrower) > 3 else "")
        remedy = "correct the robot's URDF here, or raise safety.limit_margin_rad"
        yield warning(name, f"the robot's own are narrower: {shown}", remedy)
    else:
        yield ok(name, f"{compared} joints as in the robot_description that is published")


def largest_image(facts: GraphFacts) -> int:
    """Bytes of the largest image that arrived; 0 for none."""
    sizes = [stream.bytes for topic in facts.topics.values() for stream in topic.streams]
    return max(sizes, default=0)


def _short(endpoint: Endpoint) -> str:
    return endpoint.node.rsplit("/", maxsplit=1)[-1]
