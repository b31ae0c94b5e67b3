"""One MuJoCo model per environment, whose physical parameters change between episodes."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

import mujoco
import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.physics.engine import PhysicsParameters
from dexgrasp_sim.physics.mujoco.object_geoms import OBJECT
from dexgrasp_sim.robot.model import RobotModel


class ModelParameters:
    """Copies of the objects' models, one per environment, edited in place.

    A copy takes about 0.2 MiB and 0.5 ms, an edit about 0.1 ms. Edits take effect with the next
    `Batch.set_models`, whose cost is negligible.

    Attributes:
        models: One per environment.
        values: The current parameters of all environments.
    """

    def __init__(self, nominal: Sequence[mujoco.MjModel], robot: RobotModel) -> None:
        """Args:
        nominal: The compiled model of each environment; not changed.
        robot: Has the joint names and the dry friction.
        """
        self._nominal = nominal
        self.models = [copy.copy(model) for model in nominal]
        self._data = mujoco.MjData(nominal[0])
        names = robot.joint_names
        self._actuators = [nominal[0].actuator(name).id for name in names]
        self._dofs = nominal[0].jnt_dofadr[[nominal[0].joint(name).id for name in names]]
        self._joint_friction = np.array([robot.joints[name].friction for name in names])
        self._object = nominal[0].body(OBJECT).id
        masses = [model.body_mass[self._object] for model in nominal]
        self._nominal_mass = torch.tensor(masses).float()
        self.values = PhysicsParameters.nominal(len(nominal), len(names))

    def set(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        """Changes the models of environments [K]; see `PhysicsEngine.set_parameters`."""
        for field in fields(PhysicsParameters):
            getattr(self.values, field.name)[env_ids] = getattr(parameters, field.name)
        for env in env_ids.tolist():
            self._edit(env)

    def _edit(self, env: int) -> None:
        model, nominal, values = self.models[env], self._nominal[env], self.values
        model.geom_friction[:] = nominal.geom_friction * values.friction_scale[env].item()
        ratio = damping_ratio(values.restitution[env].item())
        # MuJoCo's stiffness is 1 / (time constant * ratio)^2: this changes the damping only
        model.geom_solref[:] = nominal.geom_solref * (1.0 / ratio, ratio)
        stiffness = values.stiffness_scale[env].numpy()
        damping = values.damping_scale[env].numpy()
        rows = self._actuators
        model.actuator_gainprm[rows, 0] = nominal.actuator_gainprm[rows, 0] * stiffness
        model.actuator_biasprm[rows, 1] = nominal.actuator_biasprm[rows, 1] * stiffness
        model.actuator_biasprm[rows, 2] = nominal.actuator_biasprm[rows, 2] * damping
        friction_scale = values.joint_friction_scale[env].numpy()
        model.dof_frictionloss[self._dofs] = self._joint_friction * friction_scale
        scale = values.object_mass_scale[env].item()
        model.body_mass[self._object] = nominal.body_mass[self._object] * scale
        model.body_inertia[self._object] = nominal.body_inertia[self._object] * scale
        # updates constants that the compiler derived from the masses
        mujoco.mj_setConst(model, self._data)

    @property
    def object_mass(self) -> Tensor:
        """[N] float32 kg."""
        return self._nominal_mass * self.values.object_mass_scale

    def state_dict(self) -> dict[str, Tensor]:
        """The current parameters of all environments, by name."""
        names = [field.name for field in fields(PhysicsParameters)]
        return {name: getattr(self.values, name).clone() for name in names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        self.set(torch.arange(len(self.models)), PhysicsParameters(**state))


def damping_ratio(restitution: float) -> float:
    """Damping ratio z of MuJoCo's contact model, a spring and damper, for a restitution.

    With a linear spring and damper, two bodies separate after half a period with
    exp(-pi z / sqrt(1 - z^2)) of their impact speed; this is solved for z. It only approximates a
    coefficient of restitution, because long physics steps reduce the speed further.
    """
    if restitution <= 0.0:
        return 1.0
    loss = -math.log(restitution)
    return loss / math.hypot(math.pi, loss)
