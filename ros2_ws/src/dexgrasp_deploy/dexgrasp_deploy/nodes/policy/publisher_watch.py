"""Notices that somebody else publishes on the robot's topics."""

from collections.abc import Callable, Sequence

from rclpy.node import Node

_LASTS = 3
"""Checks in a row that must agree: nodes that start or end are not seen all at once."""


class PublisherWatch:
    """Compares who publishes with who should."""

    def __init__(
        self, node: Node, streams: Callable[[], Sequence[tuple[str, ...]]], commands: bool
    ) -> None:
        """Args:
        node: The owner, which alone may publish `joint_command`.
        streams: The joint names of each stream that arrives on `joint_states`: each may have one
            publisher, and no joint may be in two.
        commands: Whether the owner publishes commands; else anybody may.
        """
        self._node, self._streams, self._commands = node, streams, commands
        self._times = 0

    def check(self) -> str:
        """What is wrong, with the names of the publishers; "" for nothing. Called by a timer."""
        found = self._foreign_commands() or self._doubled_states()
        self._times = self._times + 1 if found else 0
        return found if self._times >= _LASTS else ""

    def _foreign_commands(self) -> str:
        if not self._commands:
            return ""
        names = publisher_names(self._node, "joint_command")
        own = full_name(self._node.get_namespace(), self._node.get_name())
        others = list(names)
        if own in others:
            others.remove(own)
        if not others:
            return ""
        return f"joint_command is also published by {', '.join(others)}; stop it"

    def _doubled_states(self) -> str:
        names = publisher_names(self._node, "joint_states")
        streams = [set(stream) for stream in self._streams()]
        shared = set().union(
            *(one & other for i, one in enumerate(streams) for other in streams[:i])
        )
        if shared:
            return (
                f"{', '.join(sorted(shared)[:3])} and others of joint_states come in two streams, "
                f"published by {', '.join(names)}; let one driver publish each joint"
            )
        if len(names) > max(1, len(streams)):
            return (
                f"joint_states is published by {', '.join(names)}, which send the same joints; "
                "stop all but one"
            )
        return ""


def publisher_names(node: Node, topic: str) -> list[str]:
    """Full names of the nodes that publish on a topic, once for each publisher, sorted."""
    infos = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    return sorted(full_name(info.node_namespace, info.node_name) for info in infos)


def full_name(namespace: str, name: str) -> str:
    """A node's name with its namespace."""
    return f"{namespace.rstrip('/')}/{name}"
