"""`dexgrasp distill`: what a user may give it, and what it refuses before it writes anything."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dexgrasp_deploy.commands.cli import USAGE_ERROR, main
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.run.teachers import load_teacher
from dexgrasp_learner.storage.bundle import seal_manifest
from dexgrasp_sim.config import to_dict
from test_support.bundles import manifest_values, write_teachers

torch.set_num_threads(1)

CONFIG = Path(__file__).parents[1] / "config" / "student_stereo.yaml"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Bundles of small random policies by what they read; tests must not change them."""
    parent = tmp_path_factory.mktemp("teachers")
    write_teachers(parent)
    return parent


@pytest.fixture
def copy(bundles, tmp_path):
    """A copy of a bundle to spoil."""
    return shutil.copytree(bundles / "state", tmp_path / "copy")


@pytest.fixture
def restore_torch():
    """A run sets this for its whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def refused(capsys, runs, teacher, *overrides):
    """The one line with which `dexgrasp distill` refuses; it must leave nothing behind."""
    words = ["distill", str(CONFIG), "--teacher", str(teacher), "--runs", str(runs)]
    options = [f"--set={text}" for text in ("simulators.num_envs=8", *overrides)]
    assert main([*words, *options]) == USAGE_ERROR
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "no sensor measures" not in line]
    assert out == "" and len(lines) == 1 and not runs.exists(), err
    return lines[0]


def changed_byte(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [changed_byte, lambda content: content[:1000]])
def test_a_damaged_bundle_is_refused(copy, tmp_path, capsys, damage):
    policy = copy / "policy.onnx"
    policy.write_bytes(damage(policy.read_bytes()))
    line = refused(capsys, tmp_path / "runs", copy)
    assert "policy.onnx: was changed after export" in line


def test_a_truncated_graph_of_the_right_hash_is_refused(copy, tmp_path, capsys):
    values = manifest_values(copy)
    (copy / "policy.onnx").write_bytes((copy / "policy.onnx").read_bytes()[:1000])
    seal_manifest(copy, values)
    assert "cannot load it" in refused(capsys, tmp_path / "runs", copy)


def test_a_manifest_of_another_version_is_refused(copy, tmp_path, capsys):
    content = json.loads((copy / "manifest.json").read_text()) | {"schema_version": 99}
    (copy / "manifest.json").write_text(json.dumps(content))
    assert "schema version 99" in refused(capsys, tmp_path / "runs", copy)


def test_a_folder_without_a_policy_is_refused(tmp_path, capsys):
    assert "nowhere" in refused(capsys, tmp_path / "runs", tmp_path / "nowhere")


def test_a_teacher_of_other_actions_is_refused_before_anything_is_written(
    bundles, tmp_path, capsys
):
    line = refused(capsys, tmp_path / "runs", bundles / "state", "task.action.kind=fabric")
    assert "its actions are velocity" in line


@pytest.mark.parametrize(
    ("encoder", "overrides"),
    [
        ("stereo_resnet", []),
        ("stereo_small", ["task.camera.width=60"]),
        ("stereo_small", ["network.actor_groups=[proprio, depth]"]),
    ],
)
def test_an_encoder_that_does_not_fit_the_image_is_refused(
    bundles, tmp_path, capsys, encoder, overrides
):
    changes = [f"network.encoder={encoder}", *overrides]
    line = refused(capsys, tmp_path / "runs", bundles / "state", *changes)
    assert encoder in line and ("does not suit" in line or "stereo colour images only" in line)


@pytest.mark.slow
@pytest.mark.usefixtures("restore_torch")
@pytest.mark.parametrize("teacher", ["state", "depth"])
def test_a_bundle_teaches_a_run(bundles, tmp_path, capsys, teacher):
    overrides = [
        "simulators.num_envs=8", "simulators.num_workers=1", "simulators.transport=in_process",
        "training.iterations=2", "training.horizon=3", "training.evaluate_every=null",
        "distillation.minibatches=2", "training.update_threads=1",
    ]  # fmt: skip
    words = ["distill", str(CONFIG), "--teacher", str(bundles / teacher), "--json"]
    options = [f"--set={text}" for text in overrides]
    assert main([*words, "--runs", str(tmp_path), *options]) == 0
    run = Path(json.loads(capsys.readouterr().out)["run_dir"])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(record["update/imitation_reach"] > 0 for record in records)
    taught = load_teacher(run, load_run_config(CONFIG))
    assert isinstance(taught, Actor) and taught.groups == ("proprio", "stereo_rgb")
    assert to_dict(load_run_config(run / "config.yaml"))["network"]["encoder"] == "stereo_small"
