"""The nodes of a training run; `train.launch.py` and `dexgrasp up train` start this one list."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.storage.checkpoint_files import run_folder_of
from dexgrasp_learner.storage.history import load_settings
from dexgrasp_learner.storage.run_folder import new_run_id
from dexgrasp_sim.bringup import NodeSpec
from dexgrasp_sim.config import ConfigError, to_dict

LEARNER = "learner_node"


def train_nodes(
    config: str | Path | None = None,
    run_id: str = "",
    runs: str | Path = "runs",
    resume: str | Path | None = None,
    overrides: Sequence[str] = (),
    env_index: int = 0,
) -> list[NodeSpec]:
    """The learner, and for each simulator worker a node that publishes its state.

    The learner starts the workers; these are not ROS nodes. All nodes end with the run.

    Args:
        config: YAML file of the run; not needed with `resume`.
        run_id: Name of the run; "": made of the config's name and the time.
        runs: Parent of the run folder.
        resume: Run folder to continue, or one of its checkpoints.
        overrides: `a.b=value` strings that override the file.
        env_index: Environment to look at.

    Raises:
        ConfigError: Neither config nor run folder is given, or a value is not allowed.
    """
    if not (config or resume):
        raise ConfigError("nothing to train: give a config file or a run folder to resume")
    folder = run_folder_of(Path(resume).resolve()) if resume else None
    path = Path(config or "")
    run = load_settings(folder, overrides) if folder else load_run_config(path, list(overrides))
    run_id = run_id or (folder.name if folder else new_run_id(run.name))
    learner: dict[str, str | list[str]] = {"run_id": run_id, "runs": str(Path(runs).resolve())}
    if resume:
        learner["resume"] = str(Path(resume).resolve())
    else:
        learner["config"] = str(path.resolve())
    if overrides:
        learner["overrides"] = list(overrides)
    nodes = [NodeSpec("dexgrasp_learner", LEARNER, LEARNER, learner)]
    if run.simulators.transport == "in_process":
        return nodes
    watched = _worker_of(env_index, run.simulators.shares)
    task = json.dumps(to_dict(run.task))
    for worker in range(run.simulators.num_workers):
        parameters = {"run_id": run_id, "worker": worker, "task": task}
        if worker == watched:
            parameters["env_index"] = env_index
        name = f"sim_worker_{worker}"
        nodes.append(NodeSpec("dexgrasp_sim", "sim_worker_node", name, parameters))
    return nodes


def _worker_of(env: int, shares: Sequence[int]) -> int:
    """The worker of an environment, from the numbers of environments of all workers."""
    ends = [*accumulate(shares)]
    if not 0 <= env < ends[-1]:
        raise ConfigError(f"env_index {env}: the run has environments 0 to {ends[-1] - 1}")
    return bisect_right(ends, env)
