"""How the robot is driven around and during an episode."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.control.evidence import EvidenceConfig
from dexgrasp_deploy.control.safety import SafetyConfig
from dexgrasp_deploy.control.sensing.streams import FreshnessConfig
from dexgrasp_sim.config import STRICT

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class LifeConfig:
    """What happens before and after the policy acts.

    Attributes:
        self_test: Before the first motion, each joint moves by half a degree and must follow, in
            that direction, and no other; see `JointCheck`.
        look_s: Images must be fit for this long before the policy begins.
        look_timeout_s: Longest time to wait for that.
        retries: Attempts after the first, each from home, while nothing is grasped.
        after: What is done with what was grasped: `hold` it until told otherwise, `place` it
            where it was grasped, or `hand_over` when the hand is told to open.
        hand_over_s: A hand that is not told to open opens by itself after this; it is put down.
        low_m: A palm less than this above the table goes up before it goes home.
        lift_m: How far it goes up.
        release_m: What is put down is let go this far above where it was grasped.
    """

    self_test: bool = False
    look_s: Annotated[float, Field(ge=0)] = 0.0
    look_timeout_s: Positive = 5.0
    retries: Count = 0
    after: Literal["hold", "place", "hand_over"] = "hold"
    hand_over_s: Positive = 30.0
    low_m: Annotated[float, Field(ge=0)] = 0.30
    lift_m: Positive = 0.10
    release_m: Annotated[float, Field(ge=0)] = 0.01


@dataclass(frozen=True, config=STRICT)
class ControlConfig:
    """All of a control loop.

    Attributes:
        shadow: Everything is computed, shown and logged, and no command ever leaves.
        approach_speed: Share of the URDF velocity limits on the way home and to put down.
        approach_tolerance_rad: A posture counts as reached within this.
        approach_timeout_s: Longest time beyond the planned motion to reach it.
        max_tracking_s: A fault is raised when commands were limited for this long because the
            robot does not follow them.
        max_overload_s: The same where a joint's torque was too high.
        fault_after_s: Joint measurements that are missing for longer than this are a fault.
        freshness: Which measurements may be acted on.
        safety: Limits of commands.
        life: What happens around the policy.
        evidence: When something counts as grasped.
    """

    shadow: bool = False
    approach_speed: Annotated[float, Field(gt=0, le=1)] = 0.25
    approach_tolerance_rad: Positive = 0.1
    approach_timeout_s: Positive = 5.0
    max_tracking_s: Positive = 1.0
    max_overload_s: Positive = 0.5
    fault_after_s: Positive = 1.0
    freshness: FreshnessConfig = FreshnessConfig()
    safety: SafetyConfig = SafetyConfig()
    life: LifeConfig = LifeConfig()
    evidence: EvidenceConfig = EvidenceConfig()
