"""A bundle acts as the learner's policy and says what a robot needs; see also damaged ones."""

import argparse
import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch

from dexgrasp_learner.commands import export
from dexgrasp_learner.commands.export import record_episode, write_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.evaluation.model_card import model_card
from dexgrasp_learner.storage.bundle import (
    ACTION,
    AUXILIARY,
    MEMORY_OUT,
    load_bundle,
    read_manifest,
    run_step,
)
from dexgrasp_learner.storage.checkpoint import policy_schema, save_checkpoint
from dexgrasp_learner.storage.origin import Origin
from dexgrasp_sim.config import ConfigError, replace, to_dict
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.specs import schema_hash
from test_support.bundles import SMALL, STEPS, make_policy, write

ROBOT = load_robot()
JOINT_NAMES = ROBOT.joint_names


@pytest.mark.slow
def test_acts_as_the_learner_over_a_whole_sequence(small):
    folder, actor, _, recorded = small
    bundle = load_bundle(folder)
    sequence = {name: values.unsqueeze(1) for name, values in recorded.items()}
    start = torch.zeros(STEPS, 1, dtype=torch.bool)
    with torch.no_grad():
        expected = actor(sequence, start, actor.initial_memory(1))
    memory = np.zeros(bundle.manifest.memory_shape, np.float32)
    for step in range(STEPS):
        observations = {name: values[step].numpy() for name, values in recorded.items()}
        outputs = run_step(bundle, observations, memory)
        memory = outputs[MEMORY_OUT]
        wanted = expected.mean[step, 0].clamp(-1.0, 1.0).numpy()
        np.testing.assert_allclose(outputs[ACTION], wanted, atol=1e-5)
        np.testing.assert_allclose(
            outputs[AUXILIARY], expected.auxiliary[step, 0].numpy(), atol=1e-5
        )
    np.testing.assert_allclose(memory, expected.memory.numpy(), atol=1e-5)
    assert expected.mean.std(dim=0).min() > 1e-3, "the policy must depend on what it sees"


def test_only_a_run_from_random_weights_says_so(small):
    folder = small[0]
    manifest = read_manifest(folder)

    def card(**settings):
        training = {**manifest.training, "training": settings}
        origin = Origin(algorithm="PPO")
        return model_card(folder, replace(manifest, training=training, origin=origin), [])

    claims = ("from random weights", "end to end")
    assert all(claim in card(initial_policy=None) for claim in claims)
    assert all(claim in card() for claim in claims)  # of a version without these settings
    for began in ({"initial_policy": "student"}, {"initial_critic": "teacher"}):
        assert not any(claim in card(**began) for claim in claims)


def test_manifest_says_what_a_robot_needs(small):
    folder, _, specs, _ = small
    manifest = read_manifest(folder)
    assert [spec.name for spec in manifest.groups] == ["proprio", "depth"]
    assert schema_hash(manifest.groups) == schema_hash([specs["proprio"], specs["depth"]])
    assert manifest.image == specs["depth"]
    assert manifest.auxiliary == specs["object"]
    assert manifest.memory_shape == (2, 1, 8)
    assert manifest.robot.joint_names == JOINT_NAMES
    assert manifest.robot.name == load_robot().name
    assert manifest.origin.commit == "c0ffee"
    assert manifest.training["network"]["memory_size"] == 8
    assert "task" not in manifest.training
    assert manifest.task == RunConfig().task


def test_graph_holds_no_path_of_the_training_machine(small):
    model = onnx.load(small[0] / "policy.onnx")
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b".py" not in model.SerializeToString()


def test_same_policy_has_the_same_id(small, tmp_path):
    write(tmp_path / "again")
    assert read_manifest(tmp_path / "again").bundle_id == read_manifest(small[0]).bundle_id


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        dataclasses.replace(SMALL, memory="none", auxiliary_group=None, actor_groups=("proprio",)),
        dataclasses.replace(SMALL, actor_groups=("proprio", "stereo_rgb"), encoder="conv"),
    ],
    ids=["reactive", "stereo"],
)
def test_other_kinds_of_policy(network, tmp_path):
    write(tmp_path / "bundle", network)
    bundle = load_bundle(tmp_path / "bundle")
    assert (bundle.manifest.memory_shape[2] == 0) == (network.memory == "none")
    assert (bundle.manifest.auxiliary is None) == (network.auxiliary_group is None)


def test_export_overwrites_bundles_only(small, tmp_path):
    _, actor, specs, recorded = small
    (tmp_path / "precious").mkdir()
    with pytest.raises(ConfigError, match="is no bundle"):
        write_bundle(tmp_path / "precious", actor, specs, RunConfig(network=SMALL), recorded)
    assert (tmp_path / "precious").is_dir()


@pytest.mark.slow
def test_export_command(tmp_path, capsys):
    actor, _, config = make_policy(SMALL)
    state = {"config": to_dict(config), "schema_hash": policy_schema(actor, config.task)}
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"commit": "beef"}))
    save_checkpoint(run / "checkpoints", 1, actor, {}, state, lambda folder: None)
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    arguments = parser.parse_args([str(run), "--out", str(tmp_path / "bundle"), "--json"])
    assert export.run(arguments) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    manifest = read_manifest(tmp_path / "bundle")
    assert report["bundle_id"] == manifest.bundle_id
    assert manifest.origin.commit == "beef"


def test_recorded_episode_is_that_of_the_policy(small):
    _, actor, specs, _ = small
    task = RunConfig().task
    recorded = record_episode(actor, task, seed=0, steps=3)
    assert {name: tuple(v.shape) for name, v in recorded.items()} == {
        name: (3, *specs[name].shape) for name in actor.groups
    }
    terms = {}
    first = 0
    for term in specs["proprio"].terms:
        terms[term.name] = recorded["proprio"][:, first : first + term.size]
        first += term.size
    assert not terms["last_action"][0].any()
    assert terms["last_action"][1].any()
    fraction = terms["episode_time_fraction"][:, 0] * task.episode_steps
    np.testing.assert_allclose(fraction.numpy(), [0.0, 1.0, 2.0], atol=1e-5)
