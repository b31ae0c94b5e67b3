"""Quality of service of this project's topics: one profile for each way in which they are read."""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""For measurements: only the newest counts; a best-effort reader matches every publisher."""
STREAMS = QoSProfile(depth=8, reliability=ReliabilityPolicy.BEST_EFFORT)
"""For a topic on which several devices publish: one must not push the other out of the queue."""
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""For commands."""
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For messages that a late subscriber must still receive."""
