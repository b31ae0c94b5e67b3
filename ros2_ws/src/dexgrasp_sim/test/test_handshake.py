"""Who gets past the handshake: whoever knows the secret, in his role, now."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_sim.transport.handshake import (
    REFUSAL,
    Dialogue,
    WrongSecret,
    as_learner,
    as_worker,
)
from dexgrasp_sim.transport.protocol import (
    MAX_SHORT_PAYLOAD_BYTES,
    Message,
    MessageType,
    ProtocolError,
    encode,
)

SECRET = b"0123456789abcdef" * 2
OTHER = b"fedcba9876543210" * 2
START = b"DXGR\x04\x00"
HELLO = Message(MessageType.HELLO, payload={"index": 3})


def feed(dialogue, data, piece=1000):
    """Gives all of some data, piece by piece; returns what was answered."""
    answer = b""
    while data:
        size = min(piece, dialogue.wanted)
        assert size > 0, "more than it wanted"
        answer += dialogue.feed(data[:size])
        data = data[size:]
    return answer


@given(st.integers(1, 50), st.integers(1, 50))
def test_both_sides_get_to_the_hello_however_the_bytes_are_cut(first, second):
    learner, worker = Dialogue(as_learner(SECRET)), Dialogue(as_worker(SECRET))
    proof = feed(worker, learner.outgoing, first)
    answer = feed(learner, worker.outgoing + proof, second)
    assert feed(worker, answer, first) == b"" and worker.wanted == 0
    feed(learner, encode(HELLO), second)
    assert learner.wanted == 0 and learner.result == HELLO


def test_the_proofs_are_hmacs_over_role_and_both_openings():
    worker = Dialogue(as_worker(SECRET))
    theirs = START + bytes(range(32))
    expected = hmac.new(SECRET, b"worker" + theirs + worker.outgoing, hashlib.sha256).digest()
    assert feed(worker, theirs) == expected
    answer = hmac.new(SECRET, b"learner" + theirs + worker.outgoing, hashlib.sha256).digest()
    feed(worker, answer)
    assert worker.wanted == 0


def test_a_learner_says_nothing_that_depends_on_the_secret_before_a_proof():
    learner = Dialogue(as_learner(SECRET))
    assert learner.outgoing[:6] == START and len(learner.outgoing) == 38
    assert feed(learner, START + bytes(32)) == b""
    with pytest.raises(WrongSecret):
        feed(learner, bytes(32))


def test_nonces_are_new_each_time_so_that_an_old_proof_is_worth_nothing():
    learner, worker = Dialogue(as_learner(SECRET)), Dialogue(as_worker(SECRET))
    heard = worker.outgoing + feed(worker, learner.outgoing)
    feed(learner, heard)
    again = Dialogue(as_learner(SECRET))
    assert again.outgoing != learner.outgoing
    with pytest.raises(WrongSecret):
        feed(again, heard)


def test_a_worker_gets_nowhere_with_its_own_words_or_a_learner_with_its():
    worker = Dialogue(as_worker(SECRET))
    echo = feed(worker, worker.outgoing)
    with pytest.raises(WrongSecret, match="does not know the secret"):
        feed(worker, echo)
    learner = Dialogue(as_learner(SECRET))
    other = Dialogue(as_learner(SECRET))
    feed(learner, other.outgoing)
    with pytest.raises(WrongSecret):
        feed(learner, learner.outgoing[6:])


def test_a_wrong_secret_is_named_on_both_sides():
    learner, worker = Dialogue(as_learner(SECRET)), Dialogue(as_worker(OTHER))
    proof = feed(worker, learner.outgoing)
    with pytest.raises(WrongSecret, match="it does not know the secret of this run"):
        feed(learner, worker.outgoing + proof)
    with pytest.raises(WrongSecret, match="the learner refuses this secret"):
        feed(worker, REFUSAL)


@pytest.mark.parametrize("side", [as_learner, as_worker])
@pytest.mark.parametrize(
    ("start", "complaint"),
    [
        (b"DXGR\x03\x00", "speaks protocol version 3, this one 4; install the same version"),
        (b"DXGR\xff\xff", "speaks protocol version 65535, this one 4"),
    ],
)
def test_another_version_is_named_in_one_line(side, start, complaint):
    with pytest.raises(ProtocolError, match=complaint) as error:
        feed(Dialogue(side(SECRET)), start + bytes(32))
    assert "\n" not in str(error.value)


def test_what_speaks_another_protocol_is_recognised_by_six_bytes():
    with pytest.raises(ProtocolError, match="not a dexgrasp peer"):
        feed(Dialogue(as_learner(SECRET)), b"GET / ")


@given(st.binary(max_size=2000))
def test_no_bytes_but_the_proof_open_the_door(data):
    learner = Dialogue(as_learner(SECRET))
    try:
        while data and learner.wanted:
            assert learner.wanted <= MAX_SHORT_PAYLOAD_BYTES
            size = learner.wanted
            learner.feed(data[:size])
            data = data[size:]
    except ProtocolError:
        pass
    assert learner.result is None
