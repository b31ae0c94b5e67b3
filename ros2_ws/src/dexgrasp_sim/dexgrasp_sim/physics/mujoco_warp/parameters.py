"""What differs between environments: objects, and parameters that change between episodes."""

from collections.abc import Mapping
from dataclasses import fields

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from dexgrasp_sim.physics.contact_model import damping_ratio
from dexgrasp_sim.physics.engine import PhysicsParameters
from dexgrasp_sim.physics.mujoco.object_geoms import OBJECT, slot_name
from dexgrasp_sim.physics.mujoco_warp.models import ObjectArrays
from dexgrasp_sim.robot.urdf import RobotModel

_OF_GEOMS = ("dataid", "size", "pos", "quat", "aabb", "rbound", "margin", "rgba")
_OF_BODY = ("mass", "inertia", "ipos", "iquat", "invweight0")
_OF_LOOKS = ("mat_texid", "mat_texrepeat", "light_dir", "light_diffuse", "light_ambient")
_OF_PARAMETERS = (
    "geom_friction",
    "geom_solref",
    "actuator_gainprm",
    "actuator_biasprm",
    "dof_frictionloss",
    "dof_invweight0",
    "body_subtreemass",
)
BATCHED = (
    *(f"geom_{name}" for name in _OF_GEOMS),
    *(f"body_{name}" for name in _OF_BODY),
    *_OF_LOOKS,
    *_OF_PARAMETERS,
)
"""Fields of the model of which every environment has its own."""


def batched_arrays(model: mjw.Model) -> dict[str, Tensor]:
    """The fields `BATCHED` as tensors that share the model's memory, each with N rows."""
    return {name: wp.to_torch(getattr(model, name)) for name in BATCHED}


def give_objects(
    arrays: Mapping[str, Tensor], host: mujoco.MjModel, objects: ObjectArrays, of_env: Tensor
) -> None:
    """Gives every environment its object.

    Args:
        arrays: See `batched_arrays`.
        host: The common model.
        objects: What differs between the objects.
        of_env: [N] int64, index of each environment's object.
    """
    slots = objects.geom_size.shape[1]
    geoms = [host.geom(slot_name(slot)).id for slot in range(slots)]
    body, dof = host.body(OBJECT).id, host.joint(OBJECT).dofadr[0]
    columns: dict[str, int | list[int] | slice] = {f"geom_{name}": geoms for name in _OF_GEOMS}
    columns |= {f"body_{name}": body for name in _OF_BODY}
    columns["dof_invweight0"] = slice(dof, dof + 6)
    for name, where in columns.items():
        values = torch.from_numpy(np.asarray(getattr(objects, name))).to(of_env.device)
        array = arrays[name]
        own = array[:, where]
        array[:, where] = values[of_env].to(array.dtype).view(own.shape)
    mass, subtree = arrays["body_mass"][:, body], arrays["body_subtreemass"]
    # the object hangs on the world, whose subtree is everything
    subtree[:, 0] += mass - subtree[:, body]
    subtree[:, body] = mass


class DeviceParameters:
    """Parameters of N environments, in the arrays that the physics reads.

    Attributes:
        values: The current ones.
        object_mass: [N] kg.
        velocity_lead_s: [N, J], see `PhysicsEngine`.
    """

    def __init__(
        self, host: mujoco.MjModel, arrays: Mapping[str, Tensor], robot: RobotModel
    ) -> None:
        """Args:
        host: The common model.
        arrays: See `batched_arrays`, with the objects of the environments.
        robot: Has the joint names and the dry friction.
        """
        self._arrays = arrays
        count, device = len(arrays["body_mass"]), arrays["body_mass"].device
        names = robot.joint_names
        actuators = [host.actuator(name).id for name in names]
        self._actuators = torch.tensor(actuators, device=device)  # [J]
        dofs = host.jnt_dofadr[[host.joint(name).id for name in names]]
        self._dofs = torch.from_numpy(dofs.astype(np.int64)).to(device)  # [J]
        friction = [robot.joints[name].friction for name in names]
        self._joint_friction = torch.tensor(friction, device=device)  # [J]
        self._body = host.body(OBJECT).id
        dof = int(host.joint(OBJECT).dofadr[0])
        self._object_dofs = slice(dof, dof + 6)
        self._nominal = {name: arrays[name].clone() for name in (*_OF_PARAMETERS, "body_mass")}
        self._nominal |= {
            name: arrays[name].clone() for name in ("body_inertia", "body_invweight0")
        }
        self.values = PhysicsParameters.nominal(count, len(names), device)
        self.object_mass = self._nominal["body_mass"][:, self._body].clone()
        gains = self._nominal["actuator_gainprm"][:, self._actuators, 0]  # [N, J]
        damping = -self._nominal["actuator_biasprm"][:, self._actuators, 2]
        self._nominal_lead_s = damping / gains
        self.velocity_lead_s = self._nominal_lead_s.clone()

    def set(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        """Changes environments [K]; see `PhysicsEngine.set_parameters`."""
        for field in fields(PhysicsParameters):
            getattr(self.values, field.name)[env_ids] = getattr(parameters, field.name)
        nominal = {name: values[env_ids] for name, values in self._nominal.items()}
        self._set_contacts(env_ids, nominal, parameters)
        self._set_joints(env_ids, nominal, parameters)
        self._set_mass(env_ids, nominal, parameters.object_mass_scale)

    def _set_contacts(
        self, ids: Tensor, nominal: Mapping[str, Tensor], parameters: PhysicsParameters
    ) -> None:
        scale = parameters.friction_scale.view(-1, 1, 1)
        self._arrays["geom_friction"][ids] = nominal["geom_friction"] * scale
        ratio = damping_ratio(parameters.restitution)  # [K]
        # the stiffness is 1 / (time constant * ratio)^2: this changes the damping only
        change = torch.stack((1.0 / ratio, ratio), dim=1)  # [K, 2]
        self._arrays["geom_solref"][ids] = nominal["geom_solref"] * change.unsqueeze(1)

    def _set_joints(
        self, ids: Tensor, nominal: Mapping[str, Tensor], parameters: PhysicsParameters
    ) -> None:
        stiffness, damping = parameters.stiffness_scale, parameters.damping_scale  # [K, J]
        rows, columns = ids.unsqueeze(1), self._actuators
        gains = nominal["actuator_gainprm"][:, columns, 0] * stiffness
        self._arrays["actuator_gainprm"][rows, columns, 0] = gains
        bias = nominal["actuator_biasprm"][:, columns]
        self._arrays["actuator_biasprm"][rows, columns, 1] = bias[:, :, 1] * stiffness
        self._arrays["actuator_biasprm"][rows, columns, 2] = bias[:, :, 2] * damping
        friction = self._joint_friction * parameters.joint_friction_scale
        self._arrays["dof_frictionloss"][rows, self._dofs] = friction
        self.velocity_lead_s[ids] = self._nominal_lead_s[ids] * damping / stiffness

    def _set_mass(self, ids: Tensor, nominal: Mapping[str, Tensor], scale: Tensor) -> None:
        """Scales the object's mass and what the compiler derived from it.

        The object is a tree of its own, so its inverse weights are those of its mass alone.
        """
        body, dofs, arrays = self._body, self._object_dofs, self._arrays
        mass = nominal["body_mass"][:, body]  # [K]
        self.object_mass[ids] = mass * scale
        arrays["body_mass"][ids, body] = mass * scale
        arrays["body_inertia"][ids, body] = nominal["body_inertia"][:, body] * scale.unsqueeze(1)
        inverse = nominal["body_invweight0"][:, body] / scale.unsqueeze(1)
        arrays["body_invweight0"][ids, body] = inverse
        dof_inverse = nominal["dof_invweight0"][:, dofs] / scale.unsqueeze(1)
        arrays["dof_invweight0"][ids, dofs] = dof_inverse
        arrays["body_subtreemass"][ids, body] = mass * scale
        rest = nominal["body_subtreemass"][:, 0] - nominal["body_subtreemass"][:, body]
        arrays["body_subtreemass"][ids, 0] = rest + mass * scale

    def state_dict(self) -> dict[str, Tensor]:
        """The current parameters of all environments, by name."""
        names = [field.name for field in fields(PhysicsParameters)]
        return {name: getattr(self.values, name).clone() for name in names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        everywhere = torch.arange(len(self.object_mass), device=self.object_mass.device)
        self.set(everywhere, PhysicsParameters(**state))
