"""Recordings and black boxes as files that rosbags reads back; full and slow disks."""

import json
import subprocess
import sys

import pytest
from rosbags.highlevel import AnyReader

from dexgrasp_deploy.recording.bag_thread import BagThread, Message
from dexgrasp_deploy.recording.message_types import STRING, MessageTypes
from dexgrasp_deploy.recording.recorder import BlackBox, Recorder, RecorderConfig

START_NS = 1_700_000_000_000_000_000
WAIT_S = 60.0
FORCE = "lab_msgs/msg/Force"
DEFINITIONS = {
    FORCE: "std_msgs/Header header\nAxis[] axes\n",
    "lab_msgs/msg/Axis": "float64 newton\n",
}


@pytest.fixture(scope="module")
def types():
    return MessageTypes(lambda kind: DEFINITIONS.get(kind, ""))


def text_message(types, text, number=0, topic="/talk"):
    return Message(topic, STRING, START_NS + number, types.serialize_text(text))


def read_texts(path):
    with AnyReader([path]) as reader:
        return [
            (connection.topic, stamp_ns, reader.deserialize(data, connection.msgtype).data)
            for connection, stamp_ns, data in reader.messages()
        ]


class Time:
    def __init__(self):
        self.now_s = 10.0

    def __call__(self):
        return self.now_s


def make_recorder(tmp_path, types, clock, **config):
    config = {"folder": str(tmp_path / "out"), "min_free_mb": 0.0, **config}
    said, warned = [], []
    recorder = Recorder(RecorderConfig(**config), types, clock, said.append, warned.append)
    return recorder, said, warned


def files(tmp_path, kind):
    return sorted((tmp_path / "out").glob(f"*_{kind}*"))


def test_a_black_box_keeps_the_last_seconds_and_no_more_memory_than_allowed(types):
    def kept(box):
        return [message.stamp_ns - START_NS for message in box.messages()]

    box = BlackBox(2.0, 1e9)
    for second in range(6):
        box.add(text_message(types, "x", second), float(second))
    assert kept(box) == [3, 4, 5]
    size = len(text_message(types, "x").data)
    small = BlackBox(1e9, 2.5 * size / 1e6)
    for second in range(6):
        small.add(text_message(types, "x", second), float(second))
    assert kept(small) == [4, 5]


def test_a_recording_is_read_back_and_begins_with_what_lasts(tmp_path, types):
    recorder, said, warned = make_recorder(tmp_path, types, Time())
    recorder.take(text_message(types, "who", topic="/about"), lasting=True)
    recorder.take(text_message(types, "before", 1))
    path = recorder.start()
    assert recorder.start() == path, "one recording at a time"
    for number in range(2, 5):
        recorder.take(text_message(types, f"message {number}", number))
    recorder.close(WAIT_S)
    recorder.take(text_message(types, "after", 6))
    assert files(tmp_path, "recording") == [path]
    # what lasts has the time at which the file began, the wall clock's
    found = read_texts(path)
    assert [(topic, text) for topic, _, text in found if topic == "/about"] == [("/about", "who")]
    assert [each for each in found if each[0] == "/talk"] == [
        ("/talk", START_NS + number, f"message {number}") for number in range(2, 5)
    ]
    assert said[-1] == f"recording: 4 messages in {path}" and not warned


def test_a_fault_is_followed_by_one_black_box_although_nothing_is_recorded(tmp_path, types):
    clock = Time()
    recorder, said, _ = make_recorder(tmp_path, types, clock, black_box_s=3.0, after_fault_s=1.0)
    recorder.take(text_message(types, "who", topic="/about"), lasting=True)
    for second in range(6):
        clock.now_s = 10.0 + second
        recorder.take(text_message(types, str(second), second))
    recorder.fault("arm is blocked")
    recorder.fault("and again")
    clock.now_s = 15.5
    recorder.take(text_message(types, "reaction", 6))
    recorder.check()
    assert not files(tmp_path, "black_box"), "what follows the fault belongs to it"
    clock.now_s = 16.0
    recorder.check()
    recorder.close(WAIT_S)
    (path,) = files(tmp_path, "black_box")
    found = read_texts(path)
    assert sorted(found, key=lambda each: (each[1], each[0])) == [
        ("/about", START_NS + 3, "who"),
        *(("/talk", START_NS + second, str(second)) for second in range(3, 6)),
        ("/talk", START_NS + 6, "reaction"),
    ]
    assert "arm is blocked" in said[-1]


def test_types_of_a_lab_are_in_the_file_with_the_types_in_them(tmp_path, types):
    types.add(FORCE)
    store = types.store
    axis = store.types["lab_msgs/msg/Axis"](newton=2.5)
    stamp = store.types["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
    header = store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="tip")
    message = store.types[FORCE](header=header, axes=[axis])
    bag = BagThread(tmp_path / "bag", types, 0.0)
    bag.put(Message("/force", FORCE, START_NS, bytes(store.serialize_cdr(message, FORCE))))
    bag.close()
    bag.join(WAIT_S)
    with AnyReader([tmp_path / "bag"]) as reader:
        ((connection, _, data),) = reader.messages()
        found = reader.deserialize(data, connection.msgtype)
    assert (found.header.frame_id, found.axes[0].newton) == ("tip", 2.5)
    with pytest.raises(ValueError, match="no definition of lab_msgs/msg/Torque"):
        types.add("lab_msgs/msg/Torque")


def test_no_room_on_the_disk_ends_a_recording_in_one_line(tmp_path, types):
    recorder, _, warned = make_recorder(tmp_path, types, Time(), min_free_mb=1e12)
    recorder.start()
    recorder.take(text_message(types, "x"))
    recorder.close(WAIT_S)
    recorder.check()
    (line,) = warned
    assert line.startswith("recording ended: ") and "MB are free at" in line
    assert "\n" not in line
    assert not recorder.recording


FULL = """
import json, pathlib, resource, sys
from dexgrasp_deploy.recording.bag_thread import Message
from dexgrasp_deploy.recording.message_types import STRING, MessageTypes
from dexgrasp_deploy.recording.recorder import Recorder, RecorderConfig
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
types, said, warned = MessageTypes(), [], []
config = RecorderConfig(folder=sys.argv[1], min_free_mb=0.0, black_box_s=0.0)
recorder = Recorder(config, types, lambda: 0.0, said.append, warned.append)
recorder.start()
data = types.serialize_text("x" * 100_000)
for number in range(100):
    recorder.take(Message("/talk", STRING, number, data))
recorder.close(60.0)
recorder.take(Message("/talk", STRING, 101, data))
print(json.dumps(warned))
"""


def test_a_disk_that_is_full_while_writing_ends_it_in_one_line_too(tmp_path):
    """A limit on the size of files is the full disk that every user can have."""
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (line,) = json.loads(result.stdout)
    assert line.startswith("recording ended: ") and "cannot be written (File too large)" in line
    assert not result.stderr


def test_a_disk_that_is_too_slow_loses_messages_and_says_how_many(tmp_path, types):
    bag = BagThread(tmp_path / "bag", types, 0.0, queue_mb=-1.0)
    for number in range(5):
        bag.put(text_message(types, "x", number))
    bag.close()
    bag.join(WAIT_S)
    assert (bag.written, bag.lost) == (0, 5)
