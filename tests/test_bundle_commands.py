"""What the commands say about bundles: whole ones, damaged ones, and those with meshes."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from dexgrasp_deploy.commands.cli import main
from dexgrasp_learner.commands.policies import load_candidate
from dexgrasp_learner.storage.bundle import load_bundle, read_manifest
from dexgrasp_learner.storage.checkpoint import policy_schema, save_checkpoint
from dexgrasp_sim.config import replace, to_dict
from dexgrasp_sim.objects.config import ObjectConfig
from test_support.bundles import SMALL, make_policy, write

torch.set_num_threads(1)

CUBE = """o cube
v -1 -1 -1
v 1 -1 -1
v 1 1 -1
v -1 1 -1
v -1 -1 1
v 1 -1 1
v 1 1 1
v -1 1 1
f 1 3 2
f 1 4 3
f 5 6 7
f 5 7 8
f 1 2 6
f 1 6 5
f 2 3 7
f 2 7 6
f 3 4 8
f 3 8 7
f 4 1 5
f 4 5 8
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A bundle; tests must not change it."""
    folder = tmp_path_factory.mktemp("bundles") / "whole"
    write(folder)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda bundle: (bundle / "MODEL_CARD.md").unlink(), "MODEL_CARD.md is missing; copy the"),
        (lambda bundle: (bundle / "leapp.yaml").write_text(""), "leapp.yaml: was changed after"),
        (lambda bundle: cut(bundle / "policy.onnx"), "policy.onnx: was changed after export"),
        (lambda bundle: cut(bundle / "manifest.json"), "manifest.json: not JSON"),
        (shutil.rmtree, "no bundle here"),
    ],
)
def test_a_damaged_bundle_is_one_line(whole, tmp_path, capsys, damage, words):
    bundle = shutil.copytree(whole, tmp_path / "damaged")
    damage(bundle)
    assert main(["inspect", "bundle", str(bundle)]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert words in line and str(bundle) in line and not shown.out


def test_a_robot_needs_no_card(whole, tmp_path):
    bundle = shutil.copytree(whole, tmp_path / "bare")
    (bundle / "MODEL_CARD.md").unlink()
    assert load_bundle(bundle).manifest == read_manifest(whole)


def save_run(folder, objects=None):
    """A run folder with a checkpoint of a random policy, and the figures of its iterations."""
    folder.mkdir()
    actor, _, config = make_policy(SMALL)
    task = replace(config.task, episode_s=0.6, objects=objects or config.task.objects)
    config = replace(config, task=task, name="tiny", seed=7)
    state = {"config": to_dict(config), "schema_hash": policy_schema(actor, task)}
    save_checkpoint(folder / "checkpoints", 2, actor, {}, state, lambda parts: None)
    hardware = {"cpu": "abacus", "cores": 10, "memory_gb": 0.1, "gpu": None}
    (folder / "run.json").write_text(
        json.dumps({"commit": "beef", "started": "2026-01-02", "hardware": hardware})
    )
    lines = [
        {
            "iteration": iteration,
            "run/env_steps": 1000 * iteration,
            "run/minutes": iteration / 2,
            "run/cpu_minutes": iteration / 4,
            "run/reward": 0.0,
            "update/kl": 0.02,
        }
        for iteration in (1, 2, 3)  # the third came after the checkpoint
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def measured(record):
    """Without the names, which differ with the folder."""
    outer = ("policy", "source", "swapped_images")
    return {key: value for key, value in record.items() if key not in outer}


@pytest.mark.slow
def test_one_command_measures_a_run_and_writes_its_card(tmp_path, capsys):
    run, bundle = save_run(tmp_path / "run"), tmp_path / "bundle"
    options = ["--evaluate=4", "--seed=9", "--threads=1", "--json", "--note=Taught by <a script>."]
    assert main(["export", str(run), f"--out={bundle}", *options]) == 0
    (figures,) = json.loads(capsys.readouterr().out.splitlines()[-1])["evaluations"]
    assert main(["evaluate", str(bundle), "--episodes=4", "--seed=9", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured(figures) == measured(again), "anyone can measure it again"
    assert measured(figures["swapped_images"]) == measured(again["swapped_images"])
    assert (figures["policy"], again["policy"]) == ("tiny", "bundle")
    manifest = read_manifest(bundle)
    assert list(manifest.evaluations) == [figures]
    origin = manifest.origin
    assert (origin.commit, origin.cpu, origin.cores) == ("beef", "abacus", 10)
    assert (origin.iteration, origin.env_steps, origin.algorithm) == (2, 2000, "PPO")
    assert (origin.minutes, origin.cpu_minutes) == (1.0, 0.5)
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in (
        "# Model card: tiny",
        f"| as trained (3) | **{figures['success_rate']:.3f}** |",
        "seed 7",
        "2,000 environment steps in 2 updates",
        "1.0 minutes, 0.5 CPU minutes",
        "abacus, 10 cores, no GPU",
        "commit beef",
        "Taught by \\<a script\\>.",
        "![Success and reward over the training](learning_curve.png)",
        "the set `laptop`, which the package makes; no file is needed",
        "it has not been tried on a real robot",
        "images without noise",
    ):
        assert words in card
    assert (bundle / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert main(["inspect", "bundle", str(bundle)]) == 0
    assert "trained   PPO, config tiny, seed 7, 2,000 steps in 1.0 min (0.5 CPU min)" in (
        capsys.readouterr().out
    )


def test_meshes_travel_with_the_bundle(tmp_path, capsys):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "cube.obj").write_text(CUBE)
    cube = ObjectConfig("a cube", "mesh", path=tmp_path / "scans" / "cube.obj", scale=0.03)
    ball = ObjectConfig("ball", "sphere", (0.06,))
    run = save_run(tmp_path / "run", (cube, ball))
    assert main(["export", str(run), f"--out={tmp_path / 'bundle'}"]) == 0
    capsys.readouterr()
    shutil.rmtree(tmp_path / "scans")
    moved = (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    manifest = load_bundle(moved).manifest
    assert manifest.objects.meshes == {"a cube": "meshes/0_cube.obj"}
    assert manifest.objects.package_set is None and manifest.objects.count == 2
    assert manifest.task.objects[0].path == moved / "meshes" / "0_cube.obj"
    assert manifest.task.objects[0].solid.extents_m == pytest.approx((0.06,) * 3)
    assert str(tmp_path) not in (moved / "manifest.json").read_text()
    (moved / "meshes" / "0_cube.obj").write_text(CUBE.replace("v 1 1 1", "v 1 1 2"))
    assert main(["evaluate", str(moved), "--episodes=2"]) == 2
    assert "0_cube.obj: was changed after export" in capsys.readouterr().err


def test_the_leapp_description_runs_the_policy(whole):
    """As its reader does: tensors by name, feedback from the named output into the input."""
    described = yaml.safe_load((whole / "leapp.yaml").read_text())
    assert set(described) == {"models", "pipeline", "system information"}
    (node,) = described["models"].values()
    session = onnxruntime.InferenceSession(str(whole / node["parameters"]["model_path"]))
    for listed, nodes in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        assert [(t["name"], t["shape"]) for t in node[listed]] == [
            (n.name, n.shape) for n in nodes
        ]
        for tensor in node[listed]:
            names = tensor.get("element_names")
            assert names is None or len(names[0]) == tensor["shape"][1]
    assert node["parameters"]["sha256sum"] == read_manifest(whole).files["policy.onnx"]
    pipeline = described["pipeline"]
    assert pipeline["inputs"] == {"policy": ["proprio", "depth"]}
    assert pipeline["outputs"] == {"policy": ["action", "auxiliary"]}
    assert pipeline["feedback_flow"] == {"policy/next_memory": ["policy/memory"]}
    vectors = np.load(whole / "test_vectors.npz")
    values = {t["name"]: np.zeros(t["shape"], t["dtype"]) for t in node["inputs"]}
    for step, action in enumerate(vectors["action"]):
        values |= {name: vectors[name][step][None] for name in pipeline["inputs"]["policy"]}
        names = [tensor["name"] for tensor in node["outputs"]]
        outputs = dict(zip(names, session.run(names, values), strict=True))
        np.testing.assert_allclose(np.asarray(outputs["action"])[0], action, atol=1e-4)
        values["memory"] = outputs["next_memory"]


def test_a_bundle_brings_the_task_it_was_made_for(whole):
    candidate = load_candidate(str(whole))
    assert candidate.config.task == read_manifest(whole).task
    assert candidate.sees and candidate.groups == ("proprio", "depth")
