"""A geometric fabric that moves palm and hand to their goals around obstacles and joint limits.

Every term gives a metric M and an acceleration in its task space; pulled back to the joints their
sum defines qdd. Geometric parts only bend the path, forcing parts and damping set the speed along
it (Ratliff et al., Generalized Nonlinear and Finsler Geometry for Robotics, 2021; Van Wyk et al.,
Geometric Fabrics, 2022). With a = M^-1 f_geometric, made energy conserving along qd,

    qdd = a - (qd . a) / (qd . qd + eps) qd + M^-1 f_forcing - damping qd

What then is really done passes `MotionLimits` and `BrakingGuard`, which hold whatever qdd is.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.control.fabric.body_points import BodyPoints, PointState, Vector3
from dexgrasp_sim.control.fabric.braking_guard import BrakingGuard, Gaps
from dexgrasp_sim.control.fabric.motion_limits import MotionLimits
from dexgrasp_sim.control.fabric.obstacles import Nearest, Obstacle, distances, nearest
from dexgrasp_sim.control.fabric.terms import (
    AttractorGains,
    LimitGains,
    PointTerm,
    PostureGains,
    RepulsionGains,
    apply_metric,
    attract,
    limit_barrier,
    posture_pull,
    repel,
)
from dexgrasp_sim.device_graphs import Fused
from dexgrasp_sim.linear_algebra import solve, sum_rows
from dexgrasp_sim.robot.robot import BodySpheres, FabricSpec, Robot

_SPEED_FLOOR = 1e-6
_STILL_M = 1e-5
_CACHED_ROWS = 1024
_PALM_METRIC, _HAND_METRIC = 1.0, 8.0


@dataclass(frozen=True, config=STRICT)
class FabricGains:
    """Strength of the terms.

    Attributes:
        palm: Pull on seven points of the palm, the error being that of all of them.
        palm_lever_m: Six of those points lie this far from the seventh, on the palm's axes.
        hand: Pull on the hand's principal components.
        joints: Pull to a joint position, where a goal has one; the metric is the posture's.
        posture: Geometric pull of all joints to a posture.
        joint_limits: Barriers of the joint limits.
        repulsion: By obstacles and the own upper arm.
    """

    palm: AttractorGains = AttractorGains(metric=_PALM_METRIC)
    palm_lever_m: Annotated[float, Field(gt=0)] = 0.25
    hand: AttractorGains = AttractorGains(metric=_HAND_METRIC)
    joints: AttractorGains = AttractorGains(metric=1.0)
    posture: PostureGains = PostureGains()
    joint_limits: LimitGains = LimitGains()
    repulsion: RepulsionGains = RepulsionGains()

    @field_validator("palm", "hand", mode="before")
    @classmethod
    def _lay_over_default(cls, value: Any, info: ValidationInfo) -> Any:
        metric = {"palm": _PALM_METRIC, "hand": _HAND_METRIC}[str(info.field_name)]
        return {"metric": metric, **value} if isinstance(value, dict) else value


class Goal(NamedTuple):
    """What the fabric moves to.

    Attributes:
        palm_points: [N, 3, 7] m, see `Fabric.palm_points`.
        hand: [N, C], principal components of the hand.
        damping: [N] 1/s, damping of all joints on the way.
        joints: [N, J] rad, a joint position that pulls as well, with the metric of the posture;
            None: none does.
    """

    palm_points: Tensor
    hand: Tensor
    damping: Tensor
    joints: Tensor | None = None


class Fabric:
    """The second-order system; it holds constants only. Batch first outside, last inside."""

    def __init__(
        self,
        gains: FabricGains,
        robot: Robot,
        spec: FabricSpec,
        posture: Tensor,
        obstacles: tuple[Obstacle, ...],
        margin_m: float,
        limits: MotionLimits,
    ) -> None:
        """Prepares constant matrices; device and dtype are those of `posture`.

        Args:
            gains: Strength of the terms.
            robot: The robot.
            spec: The robot's body spheres and principal components of the hand.
            posture: [J] rad, what redundancy is resolved to.
            obstacles: Boxes to keep off.
            margin_m: Least gap between a body sphere and an obstacle.
            limits: What the sequence of joint positions keeps.
        """
        like = {"device": posture.device, "dtype": posture.dtype}
        self._gains, self._limits, self._margin_m = gains, limits, margin_m
        self._posture, self._hand_axes = posture[:, None], spec.hand_pca.axes.to(**like)
        self._hand, self._body = robot.hand, spec.body
        self._num_spheres = len(spec.body.spheres)
        lever = self.palm_points(torch.zeros(1, 3), torch.eye(3)[None])[0]
        palm = [(robot.palm, (x, y, z)) for x, y, z in lever.T.tolist()]
        spheres = [(sphere.frame, sphere.offset_m) for sphere in spec.body.spheres]
        self._points = BodyPoints(robot, [*spheres, *palm], **like)
        self._lower, self._upper = (
            torch.tensor(bound).to(**like)[:, None] for bound in (robot.lower, robot.upper)
        )
        # the guard looks at the spheres behind those that stand still whatever the joints do
        self._moving = slice(_num_still(robot, spheres), len(spheres))
        self._palm_metric = torch.zeros(6, len(palm), 1).to(**like)
        self._palm_metric[:3] = gains.palm.metric
        self._constant_metric = self._posture_and_hand_metric()
        self._acceleration = Fused(self._acceleration_of)
        self._place_obstacles(obstacles)

    def _place_obstacles(self, obstacles: tuple[Obstacle, ...]) -> None:
        like = {"device": self._posture.device, "dtype": self._posture.dtype}
        self._boxes = len(obstacles)
        boxes = torch.tensor([(box.center_m, box.size_m) for box in obstacles]).to(**like)
        self._box_centers, sizes = boxes.view(-1, 2, 3).permute(1, 2, 0)
        # the upper arm's spheres count as boxes of size zero
        self._half_sizes = torch.nn.functional.pad(0.5 * sizes, (0, len(self._body.upper_arm)))
        self._radii = torch.tensor([sphere.radius_m for sphere in self._body.spheres]).to(**like)
        self._clearance = _clearance(len(obstacles), self._radii, self._body)[..., None]
        self._reach = (self._radii + self._margin_m)[self._moving, None]
        self._guard = BrakingGuard(self._limits, self._points.chains.some(self._moving))

    def palm_points(self, position: Tensor, rotation: Tensor) -> Tensor:
        """Seven points [N, 3, 7] of palms at positions [N, 3] m with rotations [N, 3, 3].

        The origin, then plus and minus the lever along each axis.
        """
        position, arms = position[..., None], self._gains.palm_lever_m * rotation
        return torch.cat((position, position + arms, position - arms), -1)

    def gaps(self, q: Tensor) -> Tensor:
        """Gaps [N, B] in m, less the margin, of the robot at [N, J] rad to the B boxes."""
        # parts that fit a CPU's cache; on a GPU all at once
        size = _CACHED_ROWS if q.device.type == "cpu" else max(len(q), 1)
        return torch.cat([self._gaps_of(part) for part in q.split(size)])

    def _gaps_of(self, q: Tensor) -> Tensor:
        spheres = self._points.positions(q.mT)[:, self._moving]  # [3, S, N]
        centers = self._box_centers[..., None]
        gap = distances(spheres, centers, self._half_sizes[:, : self._boxes]) - self._reach
        return gap.amin(dim=1).mT

    def step(self, q: Tensor, qd: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """One time step of the limits' length.

        Args:
            q: [N, J] rad.
            qd: [N, J] rad/s.
            goal: Where to.

        Returns:
            Next q and qd, with q_next = q + dt qd_next.
        """
        state = self._points.at(q.mT, qd.mT)
        near = self._nearest(state.position[:, : self._num_spheres])
        qdd = self._acceleration(q.mT, qd.mT, goal, state, near).mT
        bounds = self._limits.bounds(q, qd)
        wanted = self._limits.next_velocity(qd, qdd, bounds)
        velocity = self._guard.admit(qd, wanted, bounds, self._gaps(state, near))
        return self._limits.advance(q, velocity), velocity

    def acceleration(self, q: Tensor, qd: Tensor, goal: Goal) -> Tensor:
        """Joint acceleration [N, J] rad/s2 that the fabric wants, before any limit."""
        state = self._points.at(q.mT, qd.mT)
        near = self._nearest(state.position[:, : self._num_spheres])
        return self._acceleration(q.mT, qd.mT, goal, state, near).mT

    def _acceleration_of(
        self, q: Tensor, qd: Tensor, goal: Goal, state: PointState, near: Nearest
    ) -> Tensor:
        gains = self._gains
        points = self._point_terms(goal, state, near)
        curvature = apply_metric(points.metric, state.curvature)
        forces = torch.stack((points.geometric - curvature, points.forcing), 1)
        metric, forces = self._points.pull_back(state, points.metric, forces)
        barrier = limit_barrier(q, qd, self._lower, self._upper, gains.joint_limits)
        forces[0] += gains.posture.metric * posture_pull(q - self._posture, qd, gains.posture)
        forces[1] += barrier.force
        if goal.joints is not None:
            pull = attract(q - goal.joints.mT, qd, gains.joints)
            forces[1] += gains.posture.metric * pull
        forces[1, self._hand] += self._hand_force(q, qd, goal)
        metric += self._constant_metric
        metric.diagonal().add_(barrier.metric.mT)
        equations = torch.cat((metric, forces.transpose(0, 1)), 1)  # [J, J + 2, N]
        bend, pull = solve(equations).unbind(1)  # [J, N]
        power, speed = sum_rows(torch.stack((bend, qd), 1) * qd[:, None])  # [N]
        along = power / (speed + _SPEED_FLOOR)
        return bend + pull - (along + goal.damping) * qd

    def _point_terms(self, goal: Goal, state: PointState, near: Nearest) -> PointTerm:
        """Repulsion at the body spheres, then the pull at the palm's points."""
        count = self._num_spheres
        palm, palm_velocity = state.position[:, count:], state.velocity[:, count:]
        repulsion = repel(near, self._clearance, state.velocity[:, :count], self._gains.repulsion)
        error = palm - goal.palm_points.permute(1, 2, 0)
        pull = attract(error.flatten(0, 1), palm_velocity.flatten(0, 1), self._gains.palm)
        forcing = self._gains.palm.metric * pull.view_as(palm)
        palm_metric = self._palm_metric.expand(-1, -1, palm.shape[2])
        return PointTerm(
            torch.cat((repulsion.metric, palm_metric), 1),
            torch.cat((repulsion.geometric, torch.zeros_like(palm)), 1),
            torch.cat((repulsion.forcing, forcing), 1),
        )

    def _hand_force(self, q: Tensor, qd: Tensor, goal: Goal) -> Tensor:
        axes = self._hand_axes.mT[..., None]  # [16, C, 1]
        state = torch.stack((q[self._hand], qd[self._hand]), 1)[:, None]  # [16, 1, 2, N]
        error, rate = sum_rows(axes[..., None] * state).unbind(1)  # [C, N]
        error = error - goal.hand.mT
        pull = attract(error, rate, self._gains.hand)
        return self._gains.hand.metric * sum_rows(axes.transpose(0, 1) * pull[:, None])

    def _nearest(self, spheres: Tensor) -> Nearest:
        """From all body spheres' centres [3, S, N] to the boxes, then to the upper arm's."""
        boxes = self._box_centers[..., None].expand(-1, -1, spheres.shape[2])
        upper_arm = spheres[:, : len(self._body.upper_arm)]
        return nearest(spheres, torch.cat((boxes, upper_arm), 1), self._half_sizes)

    def _gaps(self, state: PointState, near: Nearest) -> Gaps:
        """Of the moving spheres to the boxes."""
        return Gaps(
            near.distance[: self._boxes, self._moving] - self._reach,
            near.normal[:, : self._boxes, self._moving],
            state.position[:, self._moving],
            state.screws,
        )

    def _posture_and_hand_metric(self) -> Tensor:
        """[J, J, 1]: the metrics that do not depend on the state."""
        metric = self._gains.posture.metric * torch.eye(len(self._posture)).to(self._posture)
        metric[self._hand, self._hand] += self._gains.hand.metric * (
            self._hand_axes.mT @ self._hand_axes
        )
        return metric[..., None]


def _num_still(robot: Robot, spheres: Sequence[tuple[str, Vector3]]) -> int:
    """How many spheres from the first on stand on the axes of all joints that carry them."""
    lower, upper = torch.tensor(robot.lower).float(), torch.tensor(robot.upper).float()
    postures = torch.stack((lower, upper, 0.3 * upper), 1)  # [J, 3]
    places = BodyPoints(robot, spheres).positions(postures)  # [3, S, 3]
    spread = (places - places[..., :1]).abs().amax(dim=(0, 2))  # [S]
    return int((spread > _STILL_M).long().argmax())


def _clearance(num_boxes: int, radii: Tensor, body: BodySpheres) -> Tensor:
    """Distance [boxes + upper-arm spheres, spheres] in m at which one touches the other.

    Minus infinity where the former does not repel the latter.
    """
    clearance = radii.repeat(num_boxes + len(body.upper_arm), 1)
    clearance[num_boxes:] += radii[list(body.upper_arm), None]
    clearance[num_boxes:, : body.hand[0]] = -torch.inf
    return clearance
