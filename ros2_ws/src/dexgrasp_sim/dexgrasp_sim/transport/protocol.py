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
"""A header with a longer payload is treated as corrupt."""


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
    """A message without its payload, and the number of payload bytes that follow.

    Raises:
        ProtocolError: Wrong magic, another version, an unknown type or too long a payload.
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
        ProtocolError: The bytes are not a JSON object.
    """
    try:
        values = json.loads(payload)
    except ValueError as error:
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
