"""How learner and remote worker prove to each other that they know the secret of the run.

Each side sends its magic, protocol version and a random nonce. Then the worker proves that it
knows the secret, then the learner, and only then does the worker introduce itself::

    opening ->                         <- opening
                                       <- HMAC-SHA256(secret, "worker" + both openings)
    HMAC-SHA256(secret, "learner" + both openings) ->
                                       <- HELLO

Every HMAC covers the fresh nonce of the side that checks it, so that an old one is worth nothing,
and names the role of its maker, so that nobody can be answered with his own (challenge-response
as in RFC 2195, with the mutual nonces and roles of ISO/IEC 9798-4). The learner, which everybody
can reach, computes nothing with the secret for a stranger beyond a comparison.

This shows who has connected. It does not encrypt and does not protect what follows: who can read
or change packets on the way can also read and change tensors. Use an SSH tunnel or WireGuard
where that matters.

Everything here is without input and output: a `Dialogue` says how many bytes it wants.
"""

import hashlib
import hmac
import secrets
import struct
from collections.abc import Generator

from dexgrasp_sim.transport.protocol import (
    HEADER,
    MAGIC,
    PROTOCOL_VERSION,
    Message,
    MessageType,
    ProtocolError,
    check_version,
    decode_header,
    decode_payload,
    no_peer,
)

HANDSHAKE_TIMEOUT_S = 10.0
"""For all of it, on either side; on a quiet machine it takes two round trips."""

NONCE_BYTES = 32
PROOF_BYTES = hashlib.sha256().digest_size
REFUSAL = bytes(PROOF_BYTES)
"""What the learner answers to a wrong proof, in place of its own."""

_START = struct.Struct("<4sH")
"""magic and protocol version, as a header begins, so that other versions recognise it."""

Steps = Generator[tuple[bytes, int], bytes, Message | None]
"""Yields what to send and how many bytes it needs next; is sent those bytes."""


class WrongSecret(ProtocolError):
    """The other side does not know the secret of the run."""


class Dialogue:
    """One side of a handshake.

    Attributes:
        outgoing: Bytes to send before anything is received.
        wanted: Number of bytes that it needs next; 0 when it is over.
        result: HELLO of the worker, on the learner's side.
    """

    def __init__(self, steps: Steps) -> None:
        """Begins `as_learner` or `as_worker`."""
        self._steps = steps
        self.outgoing, self.wanted = next(steps)
        self.result: Message | None = None
        self._received = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Goes on with at most `wanted` received bytes; returns what is to be sent.

        Raises:
            ProtocolError: The other side is none of ours, or of another version.
            WrongSecret: It does not know the secret.
        """
        self._received += data
        self.wanted -= len(data)
        if self.wanted:
            return b""
        received, self._received = bytes(self._received), bytearray()
        try:
            outgoing, self.wanted = self._steps.send(received)
        except StopIteration as end:
            self.result = end.value
            return b""
        return outgoing


def as_learner(secret: bytes) -> Steps:
    """The learner's side, up to and with the worker's HELLO."""
    ours = _opening()
    theirs = yield from _their_opening(ours)
    proof = yield b"", PROOF_BYTES
    if not hmac.compare_digest(proof, _proof(secret, b"worker", ours, theirs)):
        raise WrongSecret("it does not know the secret of this run")
    header = yield _proof(secret, b"learner", ours, theirs), HEADER.size
    hello, length = decode_header(header, {MessageType.HELLO})
    if length:
        hello = hello._replace(payload=decode_payload((yield b"", length)))
    return hello


def as_worker(secret: bytes) -> Steps:
    """The worker's side; it may send HELLO afterwards."""
    ours = _opening()
    theirs = yield from _their_opening(ours)
    answer = yield _proof(secret, b"worker", theirs, ours), PROOF_BYTES
    if answer == REFUSAL:
        raise WrongSecret("the learner refuses this secret; take the one of its run")
    if not hmac.compare_digest(answer, _proof(secret, b"learner", theirs, ours)):
        raise WrongSecret("what listens there does not know the secret of the run")
    return None


def _opening() -> bytes:
    return _START.pack(MAGIC, PROTOCOL_VERSION) + secrets.token_bytes(NONCE_BYTES)


def _their_opening(ours: bytes) -> Generator[tuple[bytes, int], bytes, bytes]:
    """Sends our opening and returns that of the other side, of the same version."""
    start = yield ours, _START.size
    magic, version = _START.unpack(start)
    if magic != MAGIC:
        raise no_peer(magic)
    # read before another version is refused: closing with unread bytes would reset the connection,
    # and our opening, which tells the other side the version, might not arrive
    nonce = yield b"", NONCE_BYTES
    check_version(magic, version)
    return start + nonce


def _proof(secret: bytes, role: bytes, learner: bytes, worker: bytes) -> bytes:
    return hmac.digest(secret, role + learner + worker, hashlib.sha256)
