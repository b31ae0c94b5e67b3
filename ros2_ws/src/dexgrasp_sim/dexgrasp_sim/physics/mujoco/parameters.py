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
from dexgrasp_sim.robot.urdf import RobotModel


class ModelParameters:
    """Copies of the objects' models, one per environment, edited in place.

    A copy takes about 0.2 MiB and half a millisecond, an edit about 0.1 ms. A batch reads the
    copies when they are handed to `Batch.set_models`, which costs next to nothing.

    Attributes:
        models: One per environment.
        values: The present parameters of all environments.
    """

    def __init__(self, nominal: Sequence[mujoco.MjModel], robot: RobotModel) -> None:
        """Args:
        nominal: The model of each environment as compiled; not changed.
        robot: Its joints' names and dry friction.
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
        # MuJoCo's spring goes with 1 / (time constant * ratio)^2: only the damper is to change
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
        # masses enter constants that were derived when the model was compiled
        mujoco.mj_setConst(model, self._data)

    @property
    def object_mass(self) -> Tensor:
        """[N] float32 kg."""
        return self._nominal_mass * self.values.object_mass_scale

    def state_dict(self) -> dict[str, Tensor]:
        """The present parameters."""
        names = [field.name for field in fields(PhysicsParameters)]
        return {name: getattr(self.values, name).clone() for name in names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        self.set(torch.arange(len(self.models)), PhysicsParameters(**state))


def damping_ratio(restitution: float) -> float:
    """Damping ratio z of the spring and damper that MuJoCo makes of a contact.

    After half a period of a linear spring and damper, two bodies part with
    exp(-pi z / sqrt(1 - z^2)) of the speed they met with; this is solved for z. It is the nearest
    that soft contacts have to a coefficient of restitution; long physics steps take speed too.
    """
    if restitution <= 0.0:
        return 1.0
    loss = -math.log(restitution)
    return loss / math.hypot(math.pi, loss)
