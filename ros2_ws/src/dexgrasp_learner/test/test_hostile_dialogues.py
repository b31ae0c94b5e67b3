"""A learner that listens against what strangers, and workers gone wrong, may send to it.

The learner's side is the real one: reception, group of workers, link. The other side is bytes.
"""

import json
import select
import socket
import struct
import tracemalloc

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from dexgrasp_learner.pool.reception import MAX_GUESTS, Reception
from dexgrasp_learner.pool.remote_worker import RemoteWorker
from dexgrasp_learner.pool.worker_connection import WorkerDied
from dexgrasp_learner.pool.worker_group import Deadline, WorkerGroup
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.transport.handshake import NONCE_BYTES, PROOF_BYTES, Dialogue, as_worker
from dexgrasp_sim.transport.layout import COUNTERS, SECONDS, RunLayout
from dexgrasp_sim.transport.learner_link import StreamLearnerLink
from dexgrasp_sim.transport.protocol import HEADER, Message, MessageType, encode
from dexgrasp_sim.transport.tcp import parse_address, slot_tensors
from dexgrasp_sim.vec_env import EnvSpecs

TIMEOUT_S = 30.0
SECRET = b"the secret of the run that listens here"
SPECS = EnvSpecs((TensorSpec("depth", (4, 3), "int16"), TensorSpec("state", (2,))), 2, 0.1)
LAYOUT = RunLayout(SPECS, 2, ((0, 2),))
ROWS = {"counters": [1] * len(COUNTERS), "seconds": [0.5] * len(SECONDS)}
STATE = bytes(range(10))
OPENING = struct.pack("<4sH", b"DXGR", 4) + bytes(NONCE_BYTES)
STAGES = ("opening", "proof", "hello", "ready", "start", "step", "save")
FROM_GROUP = STAGES.index("ready")


def slot_bytes(link):
    return sum(tensor.nbytes for tensor in slot_tensors(LAYOUT, link.tensors, 0, 0))


def answer(kind, payload, slot=0, sequence=0):
    return encode(Message(kind, slot, sequence, payload=payload))


HONEST = {
    "opening": OPENING,
    "proof": bytes(PROOF_BYTES),  # of the right length
    "hello": answer(MessageType.HELLO, {"index": 0, "pid": 7}),
    "ready": answer(MessageType.READY, {"schema_hash": LAYOUT.schema_hash}),
    "start": answer(MessageType.DONE, ROWS),
    "step": answer(MessageType.DONE, ROWS, sequence=1),
    "save": answer(MessageType.DONE, {"bytes": len(STATE)}),
}
"""What is due at each stage, without the tensors or the state that follow the last three."""


@st.composite
def wrong_headers(draw, stage):
    """The message that is due with one or more fields of its header replaced."""
    fields = list(HEADER.unpack(HONEST[stage][: HEADER.size]))
    wrong = {
        0: st.binary(min_size=4, max_size=4).filter(lambda magic: magic != b"DXGR"),
        1: st.integers(0, 2**16 - 1).filter(lambda version: version != 4),
        2: st.integers(0, 2**16 - 1).filter(lambda kind: kind != fields[2]),
        3: st.integers(2**20, 2**32 - 1),
    }
    if stage in ("start", "step", "save"):
        wrong[4] = st.integers(-(2**31), 2**31 - 1).filter(lambda slot: slot != fields[4])
        wrong[5] = st.integers(-(2**63), 2**63 - 1).filter(lambda step: step != fields[5])
    for field in draw(st.sets(st.sampled_from(sorted(wrong)), min_size=1)):
        fields[field] = draw(wrong[field])
    return HEADER.pack(*fields) + HONEST[stage][HEADER.size :] + draw(st.binary(max_size=200))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(PLAIN, lambda v: st.lists(v, max_size=5) | st.dictionaries(st.text(), v))


@st.composite
def wrong_payloads(draw, stage):
    """A right header with a payload that says something else, or is no JSON."""
    right = json.loads(HONEST[stage][HEADER.size :])
    name = draw(st.sampled_from([name for name in right if name != "pid"]))
    if draw(st.booleans()):
        value = draw(JSON.filter(lambda value: value != right[name]))
        if name in ROWS and isinstance(right[name], list):
            items = [draw(JSON)] if not draw(st.booleans()) else [float("nan"), -1, 2**63]
            value = draw(st.sampled_from([value, right[name][1:] + items, right[name] * 2]))
        payload = json.dumps({**right, name: value}).encode()
        if valid(stage, json.loads(payload)):
            payload = b"{}"
    else:
        payload = draw(st.sampled_from([b"{", b"[]", b"0", b"\xff", b"[" * 9999, b"1" * 9999]))
    fields = list(HEADER.unpack(HONEST[stage][: HEADER.size]))
    fields[3] = len(payload)
    return HEADER.pack(*fields) + payload + draw(st.binary(max_size=200))


def valid(stage, payload):
    """Whether a drawn payload happens to be one that is allowed."""
    if stage in ("start", "step"):
        counts, times = payload["counters"], payload["seconds"]
        right = isinstance(counts, list) and len(counts) == len(COUNTERS)
        right = right and all(type(count) is int and 0 <= count < 2**63 for count in counts)
        right = right and isinstance(times, list) and len(times) == len(SECONDS)
        return right and all(type(time) is float and time >= 0 for time in times)
    if stage == "save":
        return type(payload["bytes"]) is int and 0 < payload["bytes"] < 2**22
    return False


@st.composite
def dialogues(draw):
    """A stage, and the bytes that are sent there in place of those that are due."""
    stage = draw(st.sampled_from(STAGES))
    honest = HONEST[stage]
    cut = st.integers(0, len(honest) - 1).map(lambda length: honest[:length])
    sent = cut | st.binary(max_size=300).filter(lambda data: not data.startswith(honest))
    if stage in ("hello", *STAGES[FROM_GROUP:]):
        sent = sent | wrong_headers(stage) | wrong_payloads(stage)
    return stage, draw(sent)


class Door(Reception):
    """Ends what the one who is let in has to say when he is taken, not before.

    One who has gone by then is forgotten, and nothing that he has sent is read.
    """

    guest: socket.socket

    def take(self, index):
        arrived = super().take(index)
        if arrived is not None:
            self.guest.shutdown(socket.SHUT_WR)
        return arrived


class Learner:
    """A learner with one place for a worker, and a group for everyone who gets there."""

    def __init__(self):
        self.reception = Door("127.0.0.1:0", SECRET, num_workers=1)

    def serve(self, folder):
        """Takes a worker through the orders of a run; returns the link and the error."""
        link = StreamLearnerLink(LAYOUT)
        group = WorkerGroup([RemoteWorker(0, self.reception)], link, spin_us=0.0)
        deadline = Deadline.after(TIMEOUT_S)
        try:
            group.welcome([{}], LAYOUT.schema_hash, deadline)
            step = Message(MessageType.STEP, 0, 1)
            for order in (Message(MessageType.START), step, Message(MessageType.SAVE), step):
                is_save = order.type == MessageType.SAVE
                group.send(order, [folder / "state"] if is_save else None)
                group.collect(deadline)
        except WorkerDied as error:
            return link, error
        finally:
            for worker in group.workers:
                worker.disconnect()
        raise AssertionError("the other side has closed and nobody has noticed")

    def connect(self):
        return socket.create_connection(parse_address(self.reception.address), TIMEOUT_S)


def talk(connection, stage, data):
    """Is honest until a stage, then sends the data and nothing more."""
    if stage == "opening":
        connection.sendall(data)
    elif stage == "proof":
        connection.sendall(OPENING + data)
    else:
        dialogue = Dialogue(as_worker(SECRET))
        connection.sendall(dialogue.outgoing)
        while dialogue.wanted:
            connection.sendall(dialogue.feed(connection.recv(dialogue.wanted)))
        honest = STAGES[STAGES.index("hello") : STAGES.index(stage)]
        connection.sendall(b"".join(HONEST[name] + follows(name) for name in honest) + data)


def follows(stage):
    if stage == "save":
        return STATE
    return b"\x01" * slot_bytes(StreamLearnerLink(LAYOUT)) if stage in ("start", "step") else b""


def read_to_end(connection):
    """What is still to come; fails if the learner does not end the connection."""
    try:
        while connection.recv(2**16):
            pass
    except ConnectionResetError:
        pass


@pytest.fixture(scope="module")
def learner():
    learner = Learner()
    yield learner
    assert learner.reception._thread.is_alive(), "nothing that was sent has ended it"
    learner.reception.close()


def check(learner, folder, dialogue):
    """A dialogue ends, is refused or counts as the loss of a worker, and writes nothing."""
    stage, data = dialogue
    refused = learner.reception.refused
    with learner.connect() as connection:
        talk(connection, stage, data)
        learner.reception.guest = connection
        if STAGES.index(stage) < FROM_GROUP:
            connection.shutdown(socket.SHUT_WR)
            read_to_end(connection)
            assert learner.reception.refused == refused + 1
            assert learner.reception.take(0) is None
            return
        link, _ = learner.serve(folder)
        read_to_end(connection)
    slots = {"ready": 0, "start": 0, "step": 1, "save": 2}[stage]
    for slot in range(LAYOUT.horizon + 1):
        filled = [bool(tensor.any()) for tensor in slot_tensors(LAYOUT, link.tensors, 0, slot)]
        assert filled == [slot < slots] * len(filled)
    assert not link.tensors["actions"].any()
    assert bool(link.telemetry["telemetry.counters"].any()) == (slots > 0)
    assert not [*folder.iterdir()], "no file of a state that has not come"


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


def converse(learner, folder, number, examples):
    """Holds so many dialogues, the same ones for the same number."""

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None)
    @given(dialogue=dialogues())
    def hold(dialogue):
        check(learner, folder, dialogue)

    hold()


def test_malformed_dialogues_end_and_write_nothing(learner, empty_folder):
    converse(learner, empty_folder, number=0, examples=100)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 11))
def test_ten_thousand_malformed_dialogues_end_and_write_nothing(learner, empty_folder, number):
    converse(learner, empty_folder, number, examples=1000)


def test_an_honest_dialogue_fills_the_slots_and_the_file(learner, tmp_path):
    with learner.connect() as connection:
        talk(connection, "save", HONEST["save"] + STATE)
        learner.reception.guest = connection
        link, error = learner.serve(tmp_path)
    assert "closed the connection" in str(error), "when nothing more came"
    assert (tmp_path / "state").read_bytes() == STATE
    assert all(t.any() for t in slot_tensors(LAYOUT, link.tensors, 0, 1))


@pytest.mark.parametrize(
    "wrong",
    [
        answer(MessageType.DONE, ROWS, slot=1, sequence=1),
        answer(MessageType.DONE, ROWS, slot=0, sequence=2),
        answer(MessageType.DONE, {**ROWS, "counters": [99] * len(COUNTERS)}, sequence=1),
        answer(MessageType.REFUSED, {"text": "no"}, sequence=1),
    ],
)
def test_an_answer_to_another_order_writes_nothing(learner, empty_folder, wrong):
    check(learner, empty_folder, ("step", wrong + follows("step")))


@pytest.mark.parametrize("stage", STAGES[STAGES.index("hello") :])
def test_a_size_that_is_only_claimed_is_not_allocated(learner, tmp_path, stage):
    fields = list(HEADER.unpack(HONEST[stage][: HEADER.size]))
    fields[3] = 2**32 - 1
    data = HEADER.pack(*fields)
    if stage == "save":
        data = answer(MessageType.DONE, {"bytes": 2**40})
    tracemalloc.start()
    try:
        check(learner, tmp_path, (stage, data))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_silent_connections_keep_no_worker_out(learner):
    refused = learner.reception.refused
    silent = []
    try:
        for _ in range(MAX_GUESTS + 40):
            silent.append(learner.connect())
        with learner.connect() as connection:
            talk(connection, "ready", b"")
            learner.reception.guest = connection
            taken(learner).close()
        assert learner.reception.refused >= refused + 40
        assert len(learner.reception._guests) <= MAX_GUESTS
    finally:
        for connection in silent:
            connection.close()


def taken(learner):
    """The channel of the worker that has just come."""
    poller = select.poll()
    poller.register(learner.reception.fileno(), select.POLLIN)
    assert poller.poll(TIMEOUT_S * 1e3), "nobody was let in"
    arrived = learner.reception.take(0)
    assert arrived is not None
    return arrived[0]
