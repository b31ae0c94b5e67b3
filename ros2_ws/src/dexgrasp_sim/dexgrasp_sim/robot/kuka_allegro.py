"""The KUKA iiwa 7 with Allegro hand: joint order, gains and postures; the rest is in its URDF."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dexgrasp_sim.robot.urdf import RobotModel, load_urdf

URDF_PATH = Path(__file__).with_name("kuka_allegro.urdf")

FINGERS = ("index", "middle", "ring", "thumb")
ARM_JOINTS = tuple(f"iiwa7_joint_{number}" for number in range(1, 8))
HAND_JOINTS = tuple(f"{finger}_joint_{number}" for finger in FINGERS for number in range(4))
JOINT_NAMES = ARM_JOINTS + HAND_JOINTS
"""The project's joint order: every [..., 23] tensor is in it."""

PALM = "palm_link"
GRASP_CENTER = "grasp_center"
FINGERTIPS = tuple(f"{finger}_tip" for finger in FINGERS)
TASK_FRAMES = (PALM, GRASP_CENTER, *FINGERTIPS)
"""Frames that observations, rewards and control speak of; the MJCF has a site for each."""

HAND_REST = (0.0, 0.3, 0.3, 0.3) * 3 + (1.5, 0.60147215, 0.33795027, 0.60845138)
"""Hand at reset, rad (DEXTRAH)."""
HAND_FABRIC_DEFAULT = (0.0, 0.75, 0.75, 0.75) * 3 + (1.57, 0.5, 0.5, 0.5)
"""Hand the fabric falls back to, rad (DEXTRAH)."""
HAND_CURLED = (0.0, 0.0, 0.0, 0.0) * 3 + HAND_REST[12:]
"""Hand that the finger-curl reward pulls to, rad (DEXTRAH calls it curled; it is nearly flat)."""

ARM_RESET = (-0.85, 0.0, 0.76, 1.25, -1.76, 0.90, 0.64)
"""Arm at reset, rad (DEXTRAH)."""
ARM_FABRIC_DEFAULT = (-0.85, -0.50, 0.76, 1.25, -1.76, 0.90, 0.64)
"""Arm the fabric resolves its redundancy towards, rad (DEXTRAH)."""

ARM_PREGRASP = (-0.97903, -0.4661, 0.35146, 1.55174, -1.76898, 1.63433, 0.36771)
"""Arm, rad, that puts `grasp_center` at (-0.55, 0.10, 0.42) m in base, 17 cm above the table, with
the palm facing down and ZYX Euler angles (-120, 0, 180) degrees.

Best of 600 random starts of a damped least-squares solver by manipulability (0.11) and distance
to the joint limits (all within 78 % of their half range), elbow up like `ARM_FABRIC_DEFAULT`. From
here every target within +-0.1 m in x and y and 0.34..0.60 m in z is reached at this orientation.
Fingers straight away from the base (z = -180 degrees) are out of reach there: joint 4's limit.
"""

RESET_POSTURE = ARM_RESET + HAND_REST
FABRIC_DEFAULT_POSTURE = ARM_FABRIC_DEFAULT + HAND_FABRIC_DEFAULT


@dataclass(frozen=True)
class ActuatorGains:
    """Position servos: torque = stiffness * (target - q) - damping * qd, cut at the URDF effort.

    Attributes:
        stiffness: [23] in `JOINT_NAMES` order, N m/rad.
        damping: [23], N m s/rad.
        armature: [23], inertia of the drive seen at the joint, kg m2.
    """

    stiffness: tuple[float, ...]
    damping: tuple[float, ...]
    armature: tuple[float, ...]


_HAND_STIFFNESS = (3.0,) * 16  # DEXTRAH
_HAND_DAMPING = (0.1,) * 16  # DEXTRAH
# Own choice: keeps the servo's explicit stiffness term stable at 1/120 s (sqrt(3 / 0.001) rad/s)
# and well below Isaac Lab's 2 kg m2 of the arm and 0.136 of the hand, which slow the fingers.
_ARMATURE = (0.1,) * 7 + (0.001,) * 16

GAINS = {
    # DEXTRAH
    "paper": ActuatorGains(
        stiffness=(300.0, 300.0, 300.0, 300.0, 100.0, 50.0, 25.0, *_HAND_STIFFNESS),
        damping=(45.0, 45.0, 45.0, 45.0, 20.0, 15.0, 15.0, *_HAND_DAMPING),
        armature=_ARMATURE,
    ),
    # Own choice: the arm follows its target within 0.1 s, as the position interface of the real
    # arm does, so that a policy at 15 Hz sees what it asked for.
    "stiff": ActuatorGains(
        stiffness=(2000.0, 2000.0, 1000.0, 1000.0, 600.0, 400.0, 400.0, *_HAND_STIFFNESS),
        damping=(200.0, 200.0, 100.0, 100.0, 60.0, 40.0, 40.0, *_HAND_DAMPING),
        armature=_ARMATURE,
    ),
}
"""Servo gains by name."""


@cache
def load_robot() -> RobotModel:
    """The robot of this project, its joints in `JOINT_NAMES` order."""
    return load_urdf(URDF_PATH, JOINT_NAMES)
