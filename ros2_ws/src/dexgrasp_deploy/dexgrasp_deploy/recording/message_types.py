"""Definitions of message types, which a recording holds so that it can be read anywhere."""

from collections.abc import Callable, Iterator
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

STRING = "std_msgs/msg/String"


class MessageTypes:
    """The types of ROS 2, and those whose definitions are found elsewhere.

    Attributes:
        store: All types that are known so far.
    """

    def __init__(self, find: Callable[[str], str] = lambda kind: "") -> None:
        """Args:
        find: Returns the text of the .msg file of a type such as `my_msgs/msg/Force`; "" where
            there is none.
        """
        self.store = get_typestore(Stores.ROS2_JAZZY)
        self._find = find

    def add(self, kind: str) -> None:
        """Makes a type known, with the types in it.

        Raises:
            ValueError: No definition is found.
        """
        found: dict[str, Any] = {}
        self._collect(kind, found)
        if found:
            self.store.register(found)

    def serialize_text(self, text: str) -> bytes:
        """A `std_msgs/msg/String` as in a recording."""
        return bytes(self.store.serialize_cdr(self.store.types[STRING](data=text), STRING))

    def _collect(self, kind: str, found: dict[str, Any]) -> None:
        if kind in self.store.fielddefs or kind in found:
            return
        text = self._find(kind)
        if not text:
            raise ValueError(f"no definition of {kind} is found")
        found |= get_types_from_msg(text, kind)
        _, fields = found[kind]
        for _, field in fields:
            for inner in _names(field):
                self._collect(inner, found)


def _names(field: Any) -> Iterator[str]:
    """The message types in the description of a field."""
    node, value = field
    if node == Nodetype.NAME:
        yield value
    elif node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        yield from _names(value[0])
