"""An engine that computes in a process of another interpreter."""

import mmap
import os
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import safetensors.torch
import torch
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.foreign_python import environment_for
from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.physics.isaaclab.messages import (
    PARAMETERS,
    STATE,
    receive,
    scene_to_text,
    send,
    shared_bytes,
    shared_tensors,
)
from dexgrasp_sim.physics.scene import Scene
from dexgrasp_sim.stop_signals import children_without_stop_signals
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraPoses

_POLL_S = 1.0
_START_S = 1800.0
"""For the start, which compiles kernels when it is the first."""
_ANSWER_S = 600.0
_EXIT_S = 10.0
_TAIL_BYTES = 4096


class EngineProcess(PhysicsEngine):
    """An engine of Isaac Lab beside this process, on the CPU; for evaluation, views and tests.

    Its tensors lie in memory that both processes map, and each call waits for the answer to a
    message. Workers that have Isaac Lab themselves need none of this.
    """

    exact = False
    object_mass: Tensor
    velocity_lead_s: Tensor

    def __init__(self, scene: Scene, python: str) -> None:
        """Starts the process and waits until its engine is built.

        Args:
            scene: What to simulate.
            python: Interpreter with Isaac Lab.

        Raises:
            ConfigError: The engine refuses the scene, or the process ends or does not answer.
        """
        self.scene, self.num_envs, self.device = scene, scene.num_envs, torch.device("cpu")
        file = os.memfd_create("dexgrasp-isaaclab")
        ours, theirs = socket.socketpair()
        try:
            os.ftruncate(file, shared_bytes(scene))
            self._tensors = shared_tensors(scene, mmap.mmap(file, shared_bytes(scene)))
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._process = _start(python, file, theirs.fileno(), self._log.fileno())
        finally:
            os.close(file)
            theirs.close()
        self._connection = Connection(ours.detach())
        self._end = weakref.finalize(self, _stop, self._process, self._connection, self._log)
        for name in STATE:
            setattr(self, name, self._tensors[name])
        self._call("build", _START_S, scene=scene_to_text(scene))

    def _call(self, name: str, timeout_s: float = _ANSWER_S, **values: Any) -> dict[str, Any]:
        if not self._end.alive:
            raise RuntimeError("isaaclab: the engine is closed")
        try:
            send(self._connection, {"call": name, **values})
            answer = self._await(timeout_s)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._fail("its process has ended")
        if answer.get("refused"):
            self.close()
            raise ConfigError(answer["refused"])
        return answer

    def _await(self, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while not self._connection.poll(_POLL_S):
            if self._process.poll() is not None and not self._connection.poll(0.0):
                raise EOFError
            if time.monotonic() > deadline:
                self._fail(f"its process has not answered for {timeout_s:g} s")
        return receive(self._connection)

    def _fail(self, reason: str) -> NoReturn:
        size = os.fstat(self._log.fileno()).st_size
        self._log.seek(max(size - _TAIL_BYTES, 0))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        self.close()
        raise ConfigError(f"isaaclab: {reason}; its last words: {' | '.join(lines[-3:])}")

    def _rows(self, env_ids: Tensor, **values: Tensor) -> int:
        """Puts K rows into shared tensors; returns K."""
        count = len(env_ids)
        for name, value in {"env_ids": env_ids, **values}.items():
            self._tensors[name][:count] = value
        return count

    @override
    def step(self, joint_targets: Tensor) -> None:
        parts = self.in_parts(joint_targets)
        self._tensors["joint_targets"][: len(parts)] = parts
        self._call("step", parts=len(parts))

    @override
    def reset(
        self,
        env_ids: Tensor,
        joint_position: Tensor,
        object_pose: Tensor,
        joint_velocity: Tensor | None = None,
    ) -> None:
        values = {"start_position": joint_position, "start_pose": object_pose}
        if joint_velocity is not None:
            values["start_velocity"] = joint_velocity
        count = self._rows(env_ids, **values)
        self._call("reset", count=count, moving=joint_velocity is not None)

    @override
    def set_parameters(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        values = {name: getattr(parameters, name) for name in PARAMETERS}
        self._call("set_parameters", count=self._rows(env_ids, **values))

    @override
    def push_objects(self, force: Tensor, torque: Tensor) -> None:
        self._tensors["push"].copy_(torch.stack((force, torque), dim=1))
        self._call("push_objects")

    def _image(self, name: str, call: str, poses: CameraPoses | None) -> Tensor:
        if poses is not None:
            self._tensors["camera_position"].copy_(poses.position)
            self._tensors["camera_rotation"].copy_(poses.rotation)
        self._call(call, posed=poses is not None)
        return self._tensors[name]

    @override
    def render_depth(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        out.copy_(self._image("depth", "render_depth", poses))

    @override
    def depth_m(self) -> Tensor:
        return self._image("depth_m", "depth_m", None)

    @override
    def render_stereo_rgb(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        out.copy_(self._image("stereo", "render_stereo_rgb", poses))

    @override
    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        self._call("render_rgb", camera=asdict(camera))
        out.copy_(self._tensors["rgb"])

    @override
    def randomize_looks(self, env_ids: Tensor, keys: Tensor) -> None:
        self._call("randomize_looks", count=self._rows(env_ids, keys=keys))

    @override
    def state_dict(self) -> dict[str, Tensor]:
        self._call("state_dict")
        return safetensors.torch.load(self._connection.recv_bytes())

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        content = {name: value.cpu().contiguous() for name, value in state.items()}
        send(self._connection, {"call": "load_state_dict"})
        self._connection.send_bytes(safetensors.torch.save(content))
        self._await(_ANSWER_S)

    @override
    def timings(self) -> dict[str, float]:
        return self._call("timings")["seconds"]

    @override
    def close(self) -> None:
        self._end()


def _start(python: str, memory: int, channel: int, log: int) -> "subprocess.Popen[bytes]":
    module = "dexgrasp_sim.physics.isaaclab"
    with children_without_stop_signals():
        return subprocess.Popen(
            [python, "-m", module, str(memory), str(channel)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(memory, channel),
            env=environment_for(python),
            start_new_session=True,
        )


def _stop(process: "subprocess.Popen[bytes]", connection: Connection, log: Any) -> None:
    """Closes the connection, at which the process ends, and waits for it."""
    connection.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_EXIT_S)
    process.kill()
    process.wait(_EXIT_S)
    log.close()
