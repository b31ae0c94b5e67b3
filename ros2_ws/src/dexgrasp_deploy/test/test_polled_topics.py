"""Messages are taken when they are wanted, with the time at which they came, over real DDS."""

import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from std_msgs.msg import Int32

from dexgrasp_deploy.nodes.policy.polled_topics import PolledTopics
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("polled", context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


class Heard:
    """What was taken: numbers, and when they arrived."""

    def __init__(self):
        self.numbers, self.arrivals_s = [], []

    def __call__(self, message, arrival_s):
        self.numbers.append(message.data)
        self.arrivals_s.append(arrival_s)


def test_the_newest_messages_are_taken_in_their_order_and_know_when_they_came(node):
    topics, heard, qos = PolledTopics(node), Heard(), QoSProfile(depth=2)
    topics.subscribe(Int32, "numbers", heard, qos)
    publisher = node.create_publisher(Int32, "numbers", qos)
    assert topics.names == {"/numbers"}
    wait_until(lambda: publisher.get_subscription_count() == 1, "discovery")
    topics.take()
    assert heard.numbers == []
    begun_s = time.monotonic()
    for number in range(3):
        publisher.publish(Int32(data=number))
    wait_until(lambda: (topics.take(), heard.numbers)[1], "the messages")
    topics.take()
    assert heard.numbers in ([1, 2], [0, 1, 2]), "of more than the depth the newest count"
    assert begun_s - 0.01 <= heard.arrivals_s[0] <= heard.arrivals_s[-1] <= time.monotonic()


def test_no_executor_takes_them_first(node):
    topics, heard, other = PolledTopics(node), Heard(), []
    topics.subscribe(Int32, "numbers", heard, QoSProfile(depth=4))
    node.create_subscription(Int32, "numbers", other.append, 4)
    publisher = node.create_publisher(Int32, "numbers", 4)
    wait_until(lambda: publisher.get_subscription_count() == 2, "discovery")
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    publisher.publish(Int32(data=7))
    spin = lambda: executor.spin_once(timeout_sec=0.05)  # noqa: E731
    wait_until(lambda: other, "the executor's subscription", meanwhile=spin)
    assert heard.numbers == []
    wait_until(lambda: (topics.take(), heard.numbers)[1], "the message")
    assert heard.numbers == [7]
    executor.shutdown()
