"""The messages between learner and worker: a fixed header and, for some, a JSON payload.

Messages contain no tensors. Tensors are in the shared file, or, between hosts (`tcp`), follow the
message; a message says that they are ready. Lock-step of one worker (learner's messages on the
left)::

    <- HELLO     identity of the worker, schema of the run it attached to
    WELCOME ->   which environments to build
    <- READY     schema of the built environments
    START ->     reset and fill slot 0; or, to replace a lost worker (JSON: slot,
                 sequence), fill the slot that it had not completed
                                                   <- DONE
    STEP ->      actions[slot] are in place        <- DONE: slot + 1 is complete
    SAVE / LOAD -> a file path                     <- DONE, or REFUSED (JSON: text) when it
                                                   cannot be written or read
    STOP ->      end

Either side may send ERROR (JSON: text) and close. End-of-file means that the other side is gone.
Between hosts a handshake (`handshake`) comes before all this.

A receiver says which types it expects; a message of another type, or one longer than its type may
be, is refused by its header alone.
"""

import json
import struct
from collections.abc import Set
from enum import IntEnum
from typing import Any, NamedTuple

MAGIC = b"DXGR"
PROTOCOL_VERSION = 4
HEADER = struct.Struct("<4sHHIiqq")
"""magic, protocol version, type, payload bytes, slot, sequence, policy version; 32 bytes."""

MAX_PAYLOAD_BYTES = 16 * 2**20
"""Of a WELCOME, which holds the config of a run and the layout of its tensors."""

MAX_SHORT_PAYLOAD_BYTES = 32 * 2**10
"""Of the other messages: a few names and numbers, and the path of a file."""

MAX_TEXT_BYTES = 64 * 2**10
"""Of an ERROR or REFUSED, whose text may be a traceback; the end of a longer text is sent."""


class ProtocolError(RuntimeError):
    """The other side has another version or schema, or sent an unexpected message."""


class MessageType(IntEnum):
    """Type of a message; the module's docstring says who sends it when."""

    HELLO = 1
    WELCOME = 2
    READY = 3
    START = 4
    STEP = 5
    DONE = 6
    SAVE = 7
    LOAD = 8
    STOP = 9
    ERROR = 10
    REFUSED = 11


ANY_TYPE = frozenset(MessageType)
_WITH_TEXT = (MessageType.ERROR, MessageType.REFUSED)


class Message(NamedTuple):
    """One message.

    Attributes:
        type: Type of the message.
        slot: Index t on the rollout's time axis of the actions.
        sequence: Steps since the run's start, including the requested one.
        policy_version: Version of the weights that computed the actions.
        payload: Plain values.
    """

    type: MessageType
    slot: int = 0
    sequence: int = 0
    policy_version: int = 0
    payload: dict[str, Any] | None = None


def encode(message: Message) -> bytes:
    """The bytes of a message.

    Raises:
        ValueError: The payload is longer than `longest_payload` of its type.
        TypeError: The payload holds something that JSON cannot express.
    """
    payload = b""
    if message.payload is not None:
        payload = json.dumps(message.payload).encode()
    limit = longest_payload(message.type)
    if len(payload) > limit:
        raise ValueError(f"payload of {len(payload)} bytes; at most {limit} may go")
    header = HEADER.pack(
        MAGIC,
        PROTOCOL_VERSION,
        message.type,
        len(payload),
        message.slot,
        message.sequence,
        message.policy_version,
    )
    return header + payload


def text_message(kind: MessageType, text: str) -> Message:
    """An ERROR or REFUSED with as much of the end of a text as fits into it."""
    longest = MAX_TEXT_BYTES // 12 - 2  # JSON may need 12 bytes for a character
    return Message(kind, payload={"text": text[-longest:]})


def longest_payload(kind: MessageType) -> int:
    """Bytes that the payload of a message may have."""
    if kind == MessageType.WELCOME:
        return MAX_PAYLOAD_BYTES
    return MAX_TEXT_BYTES if kind in _WITH_TEXT else MAX_SHORT_PAYLOAD_BYTES


def no_peer(magic: bytes) -> ProtocolError:
    """The error for what begins in another way."""
    return ProtocolError(f"message starts with {magic!r}, not {MAGIC!r}: not a dexgrasp peer")


def check_version(magic: bytes, version: int) -> None:
    """Refuses what is not of this protocol and version; raises ProtocolError."""
    if magic != MAGIC:
        raise no_peer(magic)
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the other side speaks protocol version {version}, this one {PROTOCOL_VERSION}; "
            "install the same version of dexgrasp on both sides"
        )


def decode_header(header: bytes, expected: Set[MessageType] = ANY_TYPE) -> tuple[Message, int]:
    """A message without its payload, and the number of payload bytes that follow.

    Args:
        header: `HEADER.size` bytes.
        expected: Types that may come now.

    Raises:
        ProtocolError: Wrong magic, another version, an unknown or unexpected type, or too long a
            payload for the type.
    """
    magic, version, kind, length, slot, sequence, policy_version = HEADER.unpack(header)
    check_version(magic, version)
    if kind not in expected:
        raise _unexpected(kind, expected)
    message = Message(MessageType(kind), slot, sequence, policy_version)
    if length and length > longest_payload(message.type):
        limit = longest_payload(message.type)
        raise ProtocolError(f"{message.type.name} with a payload of {length} bytes: above {limit}")
    return message, length


def _unexpected(kind: int, expected: Set[MessageType]) -> ProtocolError:
    allowed = ", ".join(member.name for member in MessageType if member in expected)
    if kind in ANY_TYPE:
        return ProtocolError(f"expected {allowed}, received {MessageType(kind).name}")
    return ProtocolError(f"message type {kind} is not one of {allowed}")


def decode_payload(payload: bytes) -> dict[str, Any]:
    """The plain values of a payload.

    Raises:
        ProtocolError: The bytes are not a JSON object.
    """
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"payload is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ProtocolError(f"payload is a JSON {type(values).__name__}, not an object")
    return values


def require(message: Message, kind: MessageType) -> Message:
    """The message, if it has the expected type.

    Raises:
        ProtocolError: It has another type. For an ERROR, with its text.
    """
    if message.type == kind:
        return message
    if message.type == MessageType.ERROR:
        raise ProtocolError(str((message.payload or {}).get("text", "no text given")))
    raise ProtocolError(f"expected {kind.name}, received {message.type.name}")
