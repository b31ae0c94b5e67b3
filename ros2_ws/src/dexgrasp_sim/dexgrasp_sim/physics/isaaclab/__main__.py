"""The process of an `EngineProcess`: `python -m dexgrasp_sim.physics.isaaclab MEMORY CHANNEL`.

MEMORY and CHANNEL are inherited file descriptors. It ends when its parent closes the channel.
"""

import mmap
import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import safetensors.torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.physics.isaaclab.messages import (
    PARAMETERS,
    STATE,
    receive,
    scene_from_text,
    send,
    shared_bytes,
    shared_tensors,
)
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraPoses


class _Host:
    """Carries out the calls of the parent on an engine."""

    def __init__(self, engine: PhysicsEngine, tensors: dict[str, Tensor]) -> None:
        self._engine, self._tensors = engine, tensors

    def answer(self, connection: Connection, order: dict[str, Any]) -> None:
        """Carries out one call and answers it."""
        engine, tensors, name = self._engine, self._tensors, order["call"]
        reply: dict[str, Any] = {}
        content: bytes | None = None
        if name == "step":
            engine.step(tensors["joint_targets"][: order["parts"]])
        elif name == "reset":
            self._reset(order["count"], order["moving"])
        elif name == "set_parameters":
            ids, *values = (tensors[key][: order["count"]] for key in ("env_ids", *PARAMETERS))
            engine.set_parameters(ids, PhysicsParameters(*values))
        elif name == "randomize_looks":
            engine.randomize_looks(
                *(tensors[key][: order["count"]] for key in ("env_ids", "keys"))
            )
        elif name == "push_objects":
            engine.push_objects(*tensors["push"].unbind(dim=1))
        elif name in ("render_depth", "depth_m", "render_stereo_rgb"):
            self._render(name, order["posed"])
        elif name == "render_rgb":
            engine.render_rgb(CameraConfig(**order["camera"]), tensors["rgb"])
        elif name == "state_dict":
            content = safetensors.torch.save(engine.state_dict())
        elif name == "load_state_dict":
            engine.load_state_dict(safetensors.torch.load(connection.recv_bytes()))
        elif name == "timings":
            reply["seconds"] = engine.timings()
        self.publish()
        send(connection, reply)
        if content is not None:
            connection.send_bytes(content)

    def publish(self) -> None:
        """Copies the engine's tensors to the shared ones."""
        for name in STATE:
            self._tensors[name].copy_(getattr(self._engine, name))

    def _reset(self, count: int, moving: bool) -> None:
        names = ("env_ids", "start_position", "start_pose", "start_velocity")
        ids, joints, pose, velocity = (self._tensors[name][:count] for name in names)
        self._engine.reset(ids, joints, pose, velocity if moving else None)

    def _render(self, name: str, posed: bool) -> None:
        engine, tensors = self._engine, self._tensors
        poses = CameraPoses(tensors["camera_position"], tensors["camera_rotation"])
        if name == "render_depth":
            engine.render_depth(tensors["depth"], poses if posed else None)
        elif name == "depth_m":
            tensors["depth_m"].copy_(engine.depth_m())
        else:
            engine.render_stereo_rgb(tensors["stereo"], poses if posed else None)


def serve(memory: int, channel: int) -> None:
    """Builds the engine that the parent orders and carries out its calls until it is gone."""
    connection = Connection(channel)
    scene = scene_from_text(receive(connection)["scene"])
    try:
        from dexgrasp_sim.physics.isaaclab.engine import IsaacLabEngine

        engine = IsaacLabEngine(scene)
    except ConfigError as error:
        send(connection, {"refused": str(error)})
        return
    host = _Host(engine, shared_tensors(scene, mmap.mmap(memory, shared_bytes(scene))))
    host.publish()
    send(connection, {})
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            order = receive(connection)
            try:
                host.answer(connection, order)
            except ConfigError as error:
                send(connection, {"refused": str(error)})


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # freeing the libraries takes seconds
