"""`dexgrasp bench host_work`: what the host does in a control step while a GPU would compute.

Needs no GPU. A worker's step (actions, task, engine, observations, health, telemetry) is run on
the CPU with what a GPU does on its own left out: the engine's sequences of kernels (its CUDA
graphs), single kernels of Warp, and the functions that a GPU replays from recordings do nothing.
What is left is Python and torch's way to each small tensor operation. Those operations still
compute here, on few environments and tiny images so that this costs little; on a GPU each is a
launch instead, which takes the host about as long. The number of environments changes neither
code nor launches.

Every operation and every question to the device is counted.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dexgrasp_learner.config import load_run_config
from dexgrasp_sim import device_graphs
from dexgrasp_sim.arguments import whole
from dexgrasp_sim.config import replace
from dexgrasp_sim.control.fabric import braking_guard
from dexgrasp_sim.control.palm_velocity import differential_ik
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp import starts
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.transport.telemetry import WorkerTelemetry
from dexgrasp_sim.vec_env import EnvSpecs
from dexgrasp_sim.vision import image_errors
from dexgrasp_sim.worker.env_slice import EnvSlice

_GROUPS = ("proprio", "depth")
_READS = frozenset(
    {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "lift_fresh"}
)
"""What the host waits for: answers, and data of its own on the way to the device."""
_NO_LAUNCH = frozenset(
    {"view", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "detach"}
)
_OBJECTS = 4
_HORIZON = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench host_work`."""
    parser.add_argument(
        "--config", type=Path, default=Path("config/paper.yaml"), help="YAML of the run"
    )
    parser.add_argument(
        "--envs", type=whole(1), nargs="+", default=[8, 64], help="environments of the worker"
    )
    parser.add_argument(
        "--worlds", type=whole(1), default=4096, help="environments of the engine alone"
    )
    parser.add_argument("--repeats", type=whole(1), default=50, help="steps that are timed")


class _Host(TorchDispatchMode):
    """Counts what a GPU would be asked to do, and what it would be asked.

    Attributes:
        launches: By name of the operation.
        reads: Waits for the device, by the place that asks or brings.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts an operation and runs it."""
        name = func.overloadpacket.__name__
        if name in _READS:
            self.reads[_place()] += 1
        if not (func.is_view or name in _NO_LAUNCH):
            self.launches[name] += 1
        return func(*args, **(kwargs or {}))

    def launch(self, *args: Any, **kwargs: Any) -> None:
        """Stands for Warp's launches of one kernel or of many."""
        del args, kwargs
        self.launches["warp"] += 1

    def read(self, tensor: Tensor) -> Any:
        """Stands for `Tensor.tolist`."""
        self.reads[_place()] += 1
        return _tolist(tensor)


_tolist = Tensor.tolist


def _place() -> str:
    """The innermost function of this project that is running."""
    frame = sys._getframe(2)
    while frame is not None and "dexgrasp_sim" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}" if frame else "?"


@contextmanager
def _asynchronous(host: _Host) -> Iterator[None]:
    """The CPU as if it were a GPU whose work takes no time."""

    class Held:
        def __init__(self, function: device_graphs.Function, inputs: Any) -> None:
            self.outputs = function(*inputs)

        def replay(self) -> None:
            host.launches["replay"] += 1

    def every_row(mask: Tensor) -> Tensor:
        return torch.arange(len(mask), device=mask.device)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(device_graphs.RECORDERS, {"cpu": Held}))
        for module in (braking_guard, differential_ik):
            stack.enter_context(mock.patch.object(module, "known_empty", lambda mask: False))
        for module in (braking_guard, starts):
            stack.enter_context(mock.patch.object(module, "rows_to_compute", every_row))
        yield


@contextmanager
def _without_kernels(host: _Host) -> Iterator[None]:
    """Nothing of Warp computes."""
    import warp as wp

    from dexgrasp_sim.physics.mujoco_warp.launches import Launches
    from dexgrasp_sim.physics.mujoco_warp.overflows import Overflows

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(wp, "launch", host.launch))
        stack.enter_context(mock.patch.object(Launches, "__call__", host.launch))
        # on a GPU it reads a copy that lies in the host's memory, which asks nothing
        stack.enter_context(mock.patch.object(Overflows, "_tell", lambda _: None))
        # random numbers are drawn in recordings, which compute once and are then held
        errors = mock.patch.object(image_errors, "has_warp_kernels", lambda _: True)
        stack.enter_context(errors)
        yield


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `worker` by number of environments: `step` without ends of episodes, and `begin`, which begins
    episodes in two environments, each with `host_ms`, the median of the calls, `launches` and
    `reads`, the questions by the place that asks. `backend`: the engine's part of a step (push,
    physics, depth image) with `--worlds` environments.
    """
    torch.set_num_threads(1)
    task = _task(load_run_config(args.config).task)
    settings = {"config": str(args.config), "repeats": args.repeats, "worlds": args.worlds}
    host = _Host()
    with torch.inference_mode(), _asynchronous(host):
        worker = {str(count): _of_worker(task, count, args.repeats, host) for count in args.envs}
        backend = _of_backend(task, args.worlds, args.repeats, host)
    return settings, {"worker": worker, "backend": backend}


def _task(task: GraspConfig) -> GraspConfig:
    """The task with everything randomised, few objects, and images that cost little."""
    return replace(
        task,
        difficulty=1.0,
        objects=task.objects[:_OBJECTS],
        physics=replace(task.physics, backend="mujoco_warp"),
        camera=replace(task.camera, width=8, height=6),
        stagger_starts=False,
    )


def _of_worker(task: GraspConfig, count: int, repeats: int, host: _Host) -> dict[str, Any]:
    env = make_grasp_env(task, count, seed=0, groups=_GROUPS, device="cpu")
    env_slice = _slice_of(env)
    env_slice.reset()
    ids = torch.arange(2)
    try:
        with _without_kernels(host):
            slots = iter(range(10**9))
            figures = {
                "step": _measured(lambda: _step(env_slice, next(slots)), repeats, host),
                "begin": _measured(lambda: env.begin_episodes(ids), repeats, host),
            }
    finally:
        env.close()
    return figures


def _step(env_slice: EnvSlice, number: int) -> None:
    """A step of the worker and its report, with no end of an episode."""
    env = env_slice.env
    assert isinstance(env, GraspEnv)
    env.step_count.fill_(1)
    env_slice.step(number % _HORIZON, 0)
    env_slice.report()


def _slice_of(env: GraspEnv) -> EnvSlice:
    """The environments as a worker has them, but with tensors that nobody shares."""
    specs = EnvSpecs(
        env.observation_specs, env.action_dim, env.control_dt_s, env.episode_fields, ()
    )
    layout = RunLayout(specs, _HORIZON, ((0, env.num_envs),))
    tensors = {b.name: torch.zeros(b.shape, dtype=b.torch_dtype) for b in layout.blocks}
    return EnvSlice(env, layout, tensors, WorkerTelemetry(tensors, 0), 0)


def _of_backend(task: GraspConfig, worlds: int, repeats: int, host: _Host) -> dict[str, Any]:
    from dexgrasp_sim.physics.mujoco_warp.launches import Launches

    with mock.patch.object(Launches, "__call__", host.launch):  # a step of so many takes minutes
        env = make_grasp_env(task, worlds, seed=0, groups=("proprio",), device="cpu")
        engine = env.engine
        camera, force = task.camera, torch.zeros(worlds, 3)
        image = torch.zeros(worlds, camera.height, camera.width, dtype=torch.int16)
        path, poses = env.decoder.path.clone(), env.images.cameras.poses

        def step() -> None:
            engine.push_objects(force, force)
            engine.step(path)
            engine.render_depth(image, poses)

        try:
            return _measured(step, repeats, host)
        finally:
            env.close()


def _measured(work: Callable[[], None], repeats: int, host: _Host) -> dict[str, Any]:
    """Median of the calls' times; launches and questions of one call."""
    for _ in range(3):  # also records what is recorded
        work()
    taken_s = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        work()
        taken_s.append(time.perf_counter() - started_s)
    host.launches.clear()
    host.reads.clear()
    with mock.patch.object(Tensor, "tolist", lambda tensor: host.read(tensor)), host:
        work()
    return {
        "host_ms": round(1e3 * median(taken_s), 3),
        "launches": host.launches.total(),
        "most": dict(host.launches.most_common(5)),
        "reads": dict(host.reads),
    }
