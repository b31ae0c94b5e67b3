# type: ignore -- kernels are written in the language of Warp, which has other rules
"""Warp kernels of the engine: one thread per environment, or per pixel."""

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def apply_targets(
    targets: wp.array2d[float], columns: wp.array[int], ctrl: wp.array2d[float]
) -> None:
    """Puts joint targets [N, J] into effect."""
    world, joint = wp.tid()
    ctrl[world, columns[joint]] = targets[world, joint]


@wp.kernel
def replace_broken(
    start: wp.array[float],
    largest: float,
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    qacc: wp.array2d[float],
    qacc_warmstart: wp.array2d[float],
    diverged: wp.array[bool],
) -> None:
    """Marks environments whose state is not finite or out of bounds and restores their start."""
    world = wp.tid()
    broken = wp.int32(0)
    for i in range(qpos.shape[1]):
        if not wp.abs(qpos[world, i]) <= largest:  # nor if it is not a number
            broken += 1
    for i in range(qvel.shape[1]):
        if not wp.abs(qvel[world, i]) <= largest or not wp.isfinite(qacc_warmstart[world, i]):
            broken += 1
    if broken == 0:
        return
    diverged[world] = True
    for i in range(qpos.shape[1]):
        qpos[world, i] = start[i]
    for i in range(qvel.shape[1]):
        qvel[world, i] = 0.0
        qacc[world, i] = 0.0
        qacc_warmstart[world, i] = 0.0


@wp.kernel
def read_state(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    xmat: wp.array2d[wp.mat33],
    site_xpos: wp.array2d[wp.vec3],
    joint_qpos: wp.array[int],
    joint_dofs: wp.array[int],
    object_qpos: int,
    object_dof: int,
    object_body: int,
    sites: wp.array[int],
    joint_position: wp.array2d[float],
    joint_velocity: wp.array2d[float],
    object_position: wp.array2d[float],
    object_quaternion: wp.array2d[float],
    object_rotation: wp.array[wp.mat33],
    object_velocity: wp.array2d[float],
    fingertip_position: wp.array2d[wp.vec3],
    grasp_center_position: wp.array[wp.vec3],
) -> None:
    """Copies what `PhysicsEngine` shows; `sites` are the fingertips and the grasp centre."""
    world = wp.tid()
    for joint in range(joint_qpos.shape[0]):
        joint_position[world, joint] = qpos[world, joint_qpos[joint]]
        joint_velocity[world, joint] = qvel[world, joint_dofs[joint]]
    for i in range(3):
        object_position[world, i] = qpos[world, object_qpos + i]
        object_velocity[world, i] = qvel[world, object_dof + i]
    for i in range(4):
        object_quaternion[world, i] = qpos[world, object_qpos + 3 + i]
    rotation = xmat[world, object_body]
    object_rotation[world] = rotation
    # a free joint's angular velocity is in the body frame
    turning = rotation * wp.vec3(
        qvel[world, object_dof + 3], qvel[world, object_dof + 4], qvel[world, object_dof + 5]
    )
    for i in range(3):
        object_velocity[world, 3 + i] = turning[i]
    tips = fingertip_position.shape[1]
    for tip in range(tips):
        fingertip_position[world, tip] = site_xpos[world, sites[tip]]
    grasp_center_position[world] = site_xpos[world, sites[tips]]


@wp.kernel
def place_cameras(
    position: wp.array2d[wp.vec3],
    rotation: wp.array2d[wp.mat33],
    light_dir: wp.array2d[wp.vec3],
    cam_xpos: wp.array2d[wp.vec3],
    cam_xmat: wp.array2d[wp.mat33],
    light_xdir: wp.array2d[wp.vec3],
) -> None:
    """Sets the poses of the cameras that a view renders, and the direction of the lamp."""
    world = wp.tid()
    for camera in range(position.shape[1]):
        cam_xpos[world, camera] = position[world, camera]
        cam_xmat[world, camera] = rotation[world, camera]
    light_xdir[world, 0] = light_dir[world, 0]


@wp.kernel
def to_millimetres(
    depth: wp.array2d[float], near_m: float, far_m: float, out: wp.array2d[wp.int16]
) -> None:
    """Rounds depths to millimetres; 0 where not between near and far."""
    world, pixel = wp.tid()
    t = depth[world, pixel]
    millimetres = wp.float32(0.0)
    if t >= near_m and t <= far_m:
        millimetres = t * 1000.0 + 0.5
    out[world, pixel] = wp.int16(millimetres)


@wp.kernel
def to_channels(
    packed: wp.array2d[wp.uint32], background: wp.array2d[float], out: wp.array4d[wp.uint8]
) -> None:
    """Unpacks pixels of alpha, red, green, blue; alpha 0 is where nothing is seen.

    `out` is [N, cameras, 3, pixels].
    """
    world, camera, pixel = wp.tid()
    value = packed[world, camera * out.shape[3] + pixel]
    if value >> wp.uint32(24) == wp.uint32(0):
        for channel in range(3):
            level = 255.0 * wp.clamp(background[world, channel], 0.0, 1.0) + 0.5
            out[world, camera, channel, pixel] = wp.uint8(level)
    else:
        for channel in range(3):
            shift = wp.uint32(16 - 8 * channel)
            out[world, camera, channel, pixel] = wp.uint8((value >> shift) & wp.uint32(255))
