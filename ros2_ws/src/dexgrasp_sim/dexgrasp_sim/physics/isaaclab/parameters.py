"""Parameters of the environments, in the arrays that Newton's solver reads."""

from dataclasses import fields

import torch
import warp as wp
from isaaclab_newton.physics import NewtonManager
from newton import ModelFlags
from torch import Tensor

from dexgrasp_sim.physics.contact_model import damping_ratio
from dexgrasp_sim.physics.engine import PhysicsParameters
from dexgrasp_sim.physics.isaaclab.simulation import Simulation
from dexgrasp_sim.physics.scene import Scene

_CONTACT_DAMPING = 100.0
"""Damping of Newton's contacts at MuJoCo's default of critical damping, 2 / (0.02 s)."""
_CONTACT_STIFFNESS = 2500.0
"""Their stiffness at MuJoCo's default time constant, 1 / (0.02 s)^2."""


class SceneParameters:
    """Parameters of N environments.

    Attributes:
        values: The current ones.
        object_mass: [N] kg.
        velocity_lead_s: [N, J], see `PhysicsEngine`.
    """

    def __init__(self, simulation: Simulation, scene: Scene) -> None:
        """Args:
        simulation: Just started.
        scene: What it simulates.
        """
        self._robot, self._object = simulation.robot, simulation.object
        robot, count = scene.robot, scene.num_envs
        data = self._object.data
        self._mass = data.body_mass.torch.reshape(count, 1).clone()
        self._inertia = data.body_inertia.torch.reshape(count, 1, 9).clone()
        device = self._mass.device
        gains = robot.gains[scene.physics.actuator_gains]
        self._stiffness = torch.tensor(gains.stiffness, device=device)  # [J]
        self._damping = torch.tensor(gains.damping, device=device)  # [J]
        friction = [robot.joints[name].friction for name in robot.joint_names]
        self._joint_friction = torch.tensor(friction, device=device)  # [J]
        self.values = PhysicsParameters.nominal(count, robot.num_joints, device)
        self.object_mass = self._mass[:, 0].clone()
        self.velocity_lead_s = (self._damping / self._stiffness).repeat(count, 1)
        self._bind_shapes(scene.physics.friction)

    def _bind_shapes(self, friction: float) -> None:
        """Takes the contact parameters of all shapes [S] as tensors and sets the nominal ones."""
        model = NewtonManager.get_model()
        self._friction = _tensor(model.shape_material_mu)
        self._contact_damping = _tensor(model.shape_material_kd)
        self._env_of_shape = _tensor(model.shape_world).long()  # [S]
        self._nominal_friction = friction
        self._friction.fill_(friction)
        self._contact_damping.fill_(_CONTACT_DAMPING)
        _tensor(model.shape_material_ke).fill_(_CONTACT_STIFFNESS)
        NewtonManager.add_model_change(ModelFlags.SHAPE_PROPERTIES)

    def set(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        """Changes environments [K]; see `PhysicsEngine.set_parameters`."""
        for field in fields(PhysicsParameters):
            getattr(self.values, field.name)[env_ids] = getattr(parameters, field.name)
        self._set_contacts()
        self._set_joints(env_ids, parameters)
        self._set_mass(env_ids, parameters.object_mass_scale)

    def _set_contacts(self) -> None:
        env = self._env_of_shape
        self._friction.copy_(self._nominal_friction * self.values.friction_scale[env])
        ratio = damping_ratio(self.values.restitution)
        self._contact_damping.copy_(_CONTACT_DAMPING * ratio[env])
        NewtonManager.add_model_change(ModelFlags.SHAPE_PROPERTIES)

    def _set_joints(self, ids: Tensor, parameters: PhysicsParameters) -> None:
        rows, robot = ids.int(), self._robot
        stiffness = self._stiffness * parameters.stiffness_scale
        damping = self._damping * parameters.damping_scale
        robot.write_joint_stiffness_to_sim_index(stiffness=stiffness, env_ids=rows)
        robot.write_joint_damping_to_sim_index(damping=damping, env_ids=rows)
        friction = self._joint_friction * parameters.joint_friction_scale
        robot.write_joint_friction_coefficient_to_sim_index(
            joint_friction_coeff=friction, env_ids=rows
        )
        self.velocity_lead_s[ids] = damping / stiffness

    def _set_mass(self, ids: Tensor, scale: Tensor) -> None:
        mass = self._mass[ids] * scale.unsqueeze(1)  # [K, 1]
        inertia = self._inertia[ids] * scale.view(-1, 1, 1)  # [K, 1, 9]
        rows = ids.int()
        self._object.set_inertias_index(inertias=inertia, env_ids=rows)
        self._object.set_masses_index(masses=mass, env_ids=rows)
        self.object_mass[ids] = mass[:, 0]


def _tensor(array: wp.array | None) -> Tensor:
    """A tensor that shares the memory of an array of a model, which has it once it is built."""
    assert array is not None
    return wp.to_torch(array)
