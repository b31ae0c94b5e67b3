"""`dexgrasp bench gpu_train`: trains a depth policy on GPU simulators, and continues it next time.

The run is `dexgrasp train` with the simulators and the learner on one device. It ends after
`--minutes` with a checkpoint, which a second call with the same folder continues. What a host that
is given back afterwards must return is `gpu_train_run.tar.xz` beside the figures: the run without
simulators and earlier checkpoints; a call that finds only this file continues from it. At the end
the policy is evaluated on new episodes in MuJoCo on the CPU.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import CHECKOUT
from benchmarks.gpu.device import check_device
from benchmarks.gpu.parts import Parts
from benchmarks.wide import training_record
from dexgrasp_learner.storage.checkpoint_files import CHECKPOINTS, list_checkpoints, seal
from dexgrasp_sim.arguments import add_overrides, number, whole

ARCHIVE = "gpu_train_run.tar.xz"
_SPARE_S = 240.0
"""For the start of the simulators, kernels to compile, and the last checkpoint."""
_EVALUATION_TIMEOUT_S = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench gpu_train`."""
    parser.add_argument("--device", default="cuda:0", help="of simulators and learner, or cpu")
    parser.add_argument("--backend", default="mujoco_warp", help="physics backend to measure")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/laptop_depth.yaml"),
        help="YAML file of the run",
    )
    parser.add_argument("--envs", type=whole(0), default=4096, help="environments to simulate")
    parser.add_argument(
        "--minutes", type=number(0.0), default=5.0, help="of training in this call"
    )
    parser.add_argument(
        "--iterations", type=whole(0), default=1_000_000, help="iterations of the training"
    )
    parser.add_argument(
        "--episodes", type=whole(0), default=512, help="of the evaluation; 0: none"
    )
    parser.add_argument("--threads", type=whole(0), default=8, help="of the evaluation")
    add_overrides(parser)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: `calls`, the summary of each call, `training`, steps, minutes and
    curve of all together, and `evaluation`.

    Raises:
        ConfigError: There is no such device.
        RuntimeError: The training failed; its messages were printed before.
    """
    check_device(args.device)
    settings = {
        "device": args.device,
        "backend": args.backend,
        "config": str(args.config),
        "envs": args.envs,
        "overrides": args.overrides,
    }
    parts = Parts(args.out, "gpu_train", settings)
    calls: list[dict[str, Any]] = parts.figures.setdefault("calls", [])
    run = _continued(args.out)
    summary = _train(args, run)
    run = Path(summary.pop("run_dir"))
    calls.append({**summary, "checkpoint": Path(summary["checkpoint"]).name})
    parts.figures["training"] = training_record(run)
    parts.write()
    _pack(run, args.out / ARCHIVE)
    if args.episodes:
        parts.figures["evaluation"] = _evaluate(args, run)
    return settings, {"parts": parts.figures}


def _continued(folder: Path) -> Path | None:
    """The run to continue: the one in `folder`, else the one in its archive, else None."""
    runs = folder / "gpu_train_runs"
    found = sorted(runs.glob("*/checkpoints")) if runs.is_dir() else []
    if not found and (folder / ARCHIVE).is_file():
        with tarfile.open(folder / ARCHIVE) as archive:
            archive.extractall(runs, filter="data")
        found = sorted(runs.glob("*/checkpoints"))
    return found[-1].parent if found else None


def _train(args: argparse.Namespace, run: Path | None) -> dict[str, Any]:
    """The summary of a training of `args.minutes`, from the start or continued."""
    is_gpu = args.device != "cpu"
    settings = {
        "task.physics.backend": args.backend,
        "simulators.device": args.device,
        "simulators.num_envs": args.envs,
        "simulators.num_workers": 1,
        "simulators.transport": "in_process",
        "training.device": "cuda" if is_gpu else "cpu",
        "training.evaluate_every": "null",
        "training.max_minutes": args.minutes,
        "training.iterations": args.iterations,
        "training.checkpoint_every": 1_000_000,
    }
    chosen = [f"{key}={value}" for key, value in settings.items()] + args.overrides
    runs = args.out / "gpu_train_runs"
    source = ["--resume", str(run)] if run else [str(args.config), "--runs", str(runs)]
    command = ["train", *source, "--json"]
    for text in chosen:
        command += ["--set", text]
    return _dexgrasp(command, 60 * args.minutes + _SPARE_S)


def _evaluate(args: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Success on new episodes in MuJoCo on the CPU, whatever it was trained in."""
    command = [
        "evaluate", str(run), "--config", str(run / "config.yaml"),
        "--set", "task.physics.backend=mujoco", "--episodes", str(args.episodes),
        "--threads", str(args.threads), "--json",
    ]  # fmt: skip
    figures = _dexgrasp(command, _EVALUATION_TIMEOUT_S)
    figures.pop("source")  # a path of this machine
    return figures


def _dexgrasp(arguments: list[str], timeout_s: float) -> dict[str, Any]:
    """The last line of a command's output, one JSON object."""
    command = [sys.executable, "-m", "dexgrasp_deploy.commands.cli", *arguments]
    done = subprocess.run(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, timeout=timeout_s
    )
    if done.returncode:
        raise RuntimeError(f"`dexgrasp {arguments[0]}` ended with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _pack(run: Path, archive: Path) -> None:
    """Packs a run with its newest checkpoint, without its simulators, which are large."""
    newest = list_checkpoints(run)[0]
    unfinished = archive.with_suffix(".partial")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / run.name
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns(CHECKPOINTS, "logs"))
        checkpoint = copy / CHECKPOINTS / newest.name
        shutil.copytree(newest, checkpoint, ignore=shutil.ignore_patterns("simulators"))
        seal(checkpoint)
        with tarfile.open(unfinished, "w:xz") as packed:
            packed.add(copy, arcname=run.name)
    shutil.move(unfinished, archive)
