"""What differs between environments: objects, and parameters that change between episodes."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

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
from dexgrasp_sim.physics.mujoco_warp.reset_kernels import (
    GeomArrays,
    JointArrays,
    MassArrays,
    set_contacts,
    set_joints,
    set_mass,
)
from dexgrasp_sim.robot.model import RobotModel
from dexgrasp_sim.warp_streams import current_stream

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
_OF_MASS = {
    "mass": "body_mass",
    "inertia": "body_inertia",
    "body_inverse": "body_invweight0",
    "dof_inverse": "dof_invweight0",
    "subtree": "body_subtreemass",
}
"""Fields of the model by those of `MassArrays`."""
_CHANGED = {*_OF_PARAMETERS, *_OF_MASS.values()}
Arrays = Mapping[str, Tensor]
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
        device = arrays["body_mass"].device
        count, names = len(arrays["body_mass"]), robot.joint_names
        nominal = {name: arrays[name].clone() for name in _CHANGED}
        self.values = PhysicsParameters.nominal(count, len(names), device)
        self.object_mass = nominal["body_mass"][:, host.body(OBJECT).id].clone()
        actuators = torch.tensor([host.actuator(name).id for name in names], device=device)  # [J]
        gains = nominal["actuator_gainprm"][:, actuators, 0]  # [N, J]
        damping = -nominal["actuator_biasprm"][:, actuators, 2]
        self.velocity_lead_s = damping / gains
        self._device = wp.device_from_torch(device)
        self._geoms = self._geom_arrays(arrays, nominal)
        self._joints = self._joint_arrays(host, arrays, nominal, actuators, robot)
        self._mass = self._mass_arrays(host, arrays, nominal)
        self._shapes = nominal["geom_friction"].shape[1], len(names)
        self._alive = nominal, self._of_joints  # the structures name their memory

    # checkers take the decorated structures for values, not for types: hence Any
    def _geom_arrays(self, arrays: Arrays, nominal: Arrays) -> Any:  # of GeomArrays
        given = GeomArrays()
        given.nominal_friction = wp.from_torch(nominal["geom_friction"])
        given.nominal_solref = wp.from_torch(nominal["geom_solref"])
        given.friction = wp.from_torch(arrays["geom_friction"])
        given.solref = wp.from_torch(arrays["geom_solref"])
        return given

    def _joint_arrays(
        self,
        host: mujoco.MjModel,
        arrays: Arrays,
        nominal: Arrays,
        actuators: Tensor,
        robot: RobotModel,
    ) -> Any:  # of JointArrays
        names, device = robot.joint_names, actuators.device
        dofs = host.jnt_dofadr[[host.joint(name).id for name in names]]
        own = {
            "actuators": actuators.int(),
            "dofs": torch.from_numpy(dofs).int().to(device),
            "dry_friction": torch.tensor(
                [robot.joints[name].friction for name in names], device=device
            ),
            "nominal_lead_s": self.velocity_lead_s.clone(),
            "lead_s": self.velocity_lead_s,
            "nominal_gain": nominal["actuator_gainprm"],
            "nominal_bias": nominal["actuator_biasprm"],
            "gain": arrays["actuator_gainprm"],
            "bias": arrays["actuator_biasprm"],
            "friction": arrays["dof_frictionloss"],
        }
        given, self._of_joints = JointArrays(), own
        for name, tensor in own.items():
            setattr(given, name, wp.from_torch(tensor))
        return given

    def _mass_arrays(
        self, host: mujoco.MjModel, arrays: Arrays, nominal: Arrays
    ) -> Any:  # of MassArrays
        given = MassArrays()
        given.body, given.dof = host.body(OBJECT).id, int(host.joint(OBJECT).dofadr[0])
        given.object_mass = wp.from_torch(self.object_mass)
        for name, of_model in _OF_MASS.items():
            setattr(given, f"nominal_{name}", wp.from_torch(nominal[of_model]))
            setattr(given, name, wp.from_torch(arrays[of_model]))
        return given

    def set(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        """Changes environments [K]; see `PhysicsEngine.set_parameters`."""
        count, (geoms, joints) = len(env_ids), self._shapes
        if not count:
            return
        for field in fields(PhysicsParameters):
            getattr(self.values, field.name)[env_ids] = getattr(parameters, field.name)
        given = (
            env_ids,
            parameters.friction_scale,
            damping_ratio(parameters.restitution),
            parameters.stiffness_scale,
            parameters.damping_scale,
            parameters.joint_friction_scale,
            parameters.object_mass_scale,
        )
        given = [value.contiguous() for value in given]  # alive until the launches
        of_env, *scales = (wp.from_torch(value, return_ctype=True) for value in given)
        on = {"device": self._device, "stream": current_stream(self._device)}
        wp.launch(set_contacts, (count, geoms), [of_env, *scales[:2], self._geoms], **on)
        wp.launch(set_joints, (count, joints), [of_env, *scales[2:5], self._joints], **on)
        wp.launch(set_mass, count, [of_env, scales[5], self._mass], **on)

    def state_dict(self) -> dict[str, Tensor]:
        """The current parameters of all environments, by name."""
        names = [field.name for field in fields(PhysicsParameters)]
        return {name: getattr(self.values, name).clone() for name in names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        everywhere = torch.arange(len(self.object_mass), device=self.object_mass.device)
        self.set(everywhere, PhysicsParameters(**state))
