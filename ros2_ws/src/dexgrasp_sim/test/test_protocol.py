import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_sim.transport.channel import (
    Channel,
    ChannelClosed,
    Listener,
    connect,
    ready_channels,
)
from dexgrasp_sim.transport.protocol import (
    HEADER,
    MAX_PAYLOAD_BYTES,
    MAX_SHORT_PAYLOAD_BYTES,
    MAX_TEXT_BYTES,
    Message,
    MessageType,
    ProtocolError,
    decode_header,
    decode_payload,
    encode,
    require,
    text_message,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=10,
)
MESSAGES = st.builds(
    Message,
    type=st.sampled_from([MessageType.WELCOME, MessageType.ERROR]),  # for long payloads
    slot=st.integers(-(2**31), 2**31 - 1),
    sequence=INT64,
    policy_version=INT64,
    payload=st.none() | st.dictionaries(st.text(), JSON),
)


def pair(spin_us=0.0):
    left, right = socket.socketpair()
    return Channel(left, spin_us), Channel(right, spin_us)


@given(MESSAGES)
def test_decoding_inverts_encoding(message):
    data = encode(message)
    decoded, length = decode_header(data[: HEADER.size])
    assert length == len(data) - HEADER.size
    if length:
        decoded = decoded._replace(payload=decode_payload(data[HEADER.size :]))
    assert decoded == message


def test_header_bytes_are_as_written_down():
    data = encode(Message(MessageType.STEP, slot=3, sequence=7, policy_version=-1))
    expected = b"DXGR" + b"\x04\x00" + b"\x05\x00" + bytes(4) + b"\x03\x00\x00\x00"
    assert data == expected + b"\x07" + bytes(7) + b"\xff" * 8


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ((b"HTTP", 1, 5, 0), "not a dexgrasp peer"),
        ((b"DXGR", 1, 5, 0), "protocol version 1, this one 4"),
        ((b"DXGR", 4, 99, 0), "type 99 is not one of HELLO"),
        ((b"DXGR", 4, MessageType.WELCOME, MAX_PAYLOAD_BYTES + 1), "payload"),
        ((b"DXGR", 4, MessageType.DONE, MAX_SHORT_PAYLOAD_BYTES + 1), "DONE with a payload"),
        ((b"DXGR", 4, MessageType.ERROR, 2**32 - 1), "ERROR with a payload"),
    ],
)
def test_garbled_headers_are_refused(header, complaint):
    data = struct.pack("<4sHHIiqq", *header, 0, 0, 0)
    with pytest.raises(ProtocolError, match=complaint):
        decode_header(data)


@pytest.mark.parametrize("payload", [b"{", b"[1]", b"\xff\xfe\xfd", b"[" * 30_000])
def test_payloads_other_than_json_objects_are_refused(payload):
    with pytest.raises(ProtocolError, match="payload"):
        decode_payload(payload)


def test_what_json_cannot_hold_is_not_sent():
    with pytest.raises(TypeError):
        encode(Message(MessageType.WELCOME, payload={"path": object()}))
    with pytest.raises(ValueError, match="payload"):
        encode(Message(MessageType.WELCOME, payload={"text": "x" * MAX_PAYLOAD_BYTES}))


@pytest.mark.parametrize("character", ["x", "\n", "\x00", "\U0001f916", '"'])
def test_the_end_of_a_long_text_is_sent(character):
    text = character * MAX_TEXT_BYTES + "the end"
    data = encode(text_message(MessageType.ERROR, text))
    found = decode_payload(data[HEADER.size :])["text"]
    assert len(found) > 1000 and text.endswith(found)


def test_a_message_that_is_not_expected_is_refused_by_its_header():
    header = encode(Message(MessageType.WELCOME, payload={"text": "x" * 1000}))[: HEADER.size]
    with pytest.raises(ProtocolError, match="expected HELLO, ERROR, received WELCOME"):
        decode_header(header, {MessageType.HELLO, MessageType.ERROR})


def test_an_error_in_place_of_what_is_due_repeats_its_text():
    error = Message(MessageType.ERROR, payload={"text": "no such task"})
    with pytest.raises(ProtocolError, match="no such task"):
        require(error, MessageType.DONE)
    with pytest.raises(ProtocolError, match="expected DONE, received STOP"):
        require(Message(MessageType.STOP), MessageType.DONE)


@pytest.mark.parametrize("spin_us", [0.0, 100.0])
def test_messages_arrive_whole_and_in_order(spin_us):
    left, right = pair(spin_us)
    sent = [Message(MessageType.STEP, slot, slot * 2, 9, {"n": slot}) for slot in range(20)]
    for message in sent:
        left.send(message)
    assert [right.receive(5.0) for _ in sent] == sent
    with pytest.raises(TimeoutError):
        right.receive(0.01)


def test_a_message_larger_than_the_socket_buffer_arrives_in_parts():
    left, right = pair()
    message = Message(MessageType.WELCOME, payload={"text": "x" * 100_000})
    left.send(message)
    assert right.receive(5.0) == message


@pytest.mark.parametrize("begun", [b"", b"DXGR"])
def test_end_of_file_is_told_apart_from_silence(begun):
    left, right = socket.socketpair()
    left.sendall(begun)
    left.close()
    with pytest.raises(ChannelClosed):
        Channel(right).receive(5.0)
    with pytest.raises(ChannelClosed):
        Channel(right).send(Message(MessageType.STOP))


def test_ready_channels_are_those_with_something_to_read_or_at_their_end():
    pairs = [pair() for _ in range(3)]
    ours = [left for left, _ in pairs]
    assert ready_channels(ours, 0.0) == []
    pairs[0][1].send(Message(MessageType.DONE))
    pairs[2][1].close()
    assert ready_channels(ours, 5.0) == [ours[0], ours[2]]


def test_a_listener_takes_the_one_who_connects(tmp_path):
    path = tmp_path / "worker_0.sock"
    with pytest.raises(ChannelClosed, match="nobody listens"):
        connect(path)
    listener = Listener(path)
    assert listener.accept(0.0) is None
    theirs = connect(path)
    ours = listener.accept(5.0)
    assert ours is not None
    theirs.send(Message(MessageType.HELLO, payload={"index": 0}))
    assert ours.expect(MessageType.HELLO, 5.0).payload == {"index": 0}
    listener.close()
    with pytest.raises(ChannelClosed):
        connect(path)
