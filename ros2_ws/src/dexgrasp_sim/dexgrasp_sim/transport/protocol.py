"""The messages between learner and worker: a fixed header and, for some, a JSON payload.

Tensors never travel in a message; they lie in the shared file, or follow the message where the two
sides share no memory (`tcp`), and a message says that they are ready. Lock-step of one worker
(learner's messages to the left)::

    <- HELLO     who I am, which schema I attached to
    WELCOME ->   which environments to build
    <- READY     the schema that the built environments really have
    START ->     reset, fill slot 0, or, in place of a worker that was lost (JSON: slot,
                 sequence), the slot which that one still owed
                                                   <- DONE
    STEP ->      actions[slot] are in place        <- DONE: slot + 1 is complete
    SAVE / LOAD -> a file path                     <- DONE, or REFUSED (JSON: text) when it
                                                   cannot be written
    STOP ->      leave

Either side may send ERROR (JSON: text) and close. End-of-file means that the other side is gone.
"""

import json
import struct
from enum import IntEnum
from typing import Any, NamedTuple

MAGIC = b"DXGR"
PROTOCOL_VERSION = 3
HEADER = struct.Struct("<4sHHIiqq")
"""magic, protocol version, type, payload bytes, slot, sequence, policy version; 32 bytes."""

MAX_PAYLOAD_BYTES = 16 * 2**20
"""A longer payload is not believed: it is a garbled header."""


class ProtocolError(RuntimeError):
    """The other side speaks another version, another schema, or out of turn."""


class MessageType(IntEnum):
    """What a message says; see the module's text for who says it when."""

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


class Message(NamedTuple):
    """One message.

    Attributes:
        type: What it says.
        slot: Index t of the rollout's time axis whose actions are meant.
        sequence: Steps since the run's start, including the one that is asked for.
        policy_version: Counter on the weights that made the actions.
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
        ValueError: The payload is longer than `MAX_PAYLOAD_BYTES`.
        TypeError: The payload holds something that JSON cannot express.
    """
    payload = b""
    if message.payload is not None:
        payload = json.dumps(message.payload).encode()
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"payload of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} may go")
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


def decode_header(header: bytes) -> tuple[Message, int]:
    """A message still without its payload, and the number of payload bytes that follow.

    Raises:
        ProtocolError: Not our magic, another version, an unknown type or an absurd length.
    """
    magic, version, kind, length, slot, sequence, policy_version = HEADER.unpack(header)
    if magic != MAGIC:
        raise ProtocolError(f"message starts with {magic!r}, not {MAGIC!r}: not a dexgrasp peer")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the other side speaks protocol version {version}, this one {PROTOCOL_VERSION}; "
            "install the same version of dexgrasp on both sides"
        )
    if length > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"payload of {length} bytes is above {MAX_PAYLOAD_BYTES}")
    try:
        return Message(MessageType(kind), slot, sequence, policy_version), length
    except ValueError:
        allowed = ", ".join(member.name for member in MessageType)
        raise ProtocolError(f"message type {kind} is not one of {allowed}") from None


def decode_payload(payload: bytes) -> dict[str, Any]:
    """The plain values of a payload.

    Raises:
        ProtocolError: The bytes are no JSON object.
    """
    try:
        values = json.loads(payload)
    except ValueError as error:
        raise ProtocolError(f"payload is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ProtocolError(f"payload is a JSON {type(values).__name__}, not an object")
    return values


def require(message: Message, kind: MessageType) -> Message:
    """The message, if it is of the type that is due.

    Raises:
        ProtocolError: It is of another type. An ERROR's text is repeated.
    """
    if message.type == kind:
        return message
    if message.type == MessageType.ERROR:
        raise ProtocolError(str((message.payload or {}).get("text", "no text given")))
    raise ProtocolError(f"expected {kind.name}, received {message.type.name}")
