"""A bundle acts as the learner's policy, and refuses to load when anything about it is off."""

import argparse
import dataclasses
import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_learner.commands import export
from dexgrasp_learner.commands.export import record_episode, write_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_learner.storage.bundle import (
    ACTION,
    AUXILIARY,
    MEMORY_IN,
    MEMORY_OUT,
    BundleError,
    BundleManifest,
    load_bundle,
    read_manifest,
    read_vectors,
    run_step,
    seal_manifest,
)
from dexgrasp_learner.storage.checkpoint import policy_schema, save_checkpoint
from dexgrasp_sim.config import ConfigError, to_dict
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.specs import schema_hash
from dexgrasp_sim.tasks.grasp.observations import grasp_specs
from test_support.full_disk import full_disk

ROBOT = load_robot()
JOINT_NAMES = ROBOT.joint_names

STEPS = 20
SMALL = NetworkConfig(
    actor_groups=("proprio", "depth"),
    memory="lstm",
    memory_size=8,
    hidden=(16,),
    fused_size=16,
    auxiliary_group="object",
)


def make_policy(network):
    """A random policy whose actions depend visibly on what it sees."""
    config = RunConfig(network=network)
    found = grasp_specs(to_dict(config.task), config.groups)
    specs = {spec.name: spec for spec in found.observation_specs}
    actor = build_actor(network, specs, found.action_dim, seed=3, depth_range_m=(0.2, 0.95))
    with torch.no_grad():
        actor.head[-1].weight.mul_(60.0)
    return actor.eval(), specs, config


def random_observations(specs, groups, steps=STEPS):
    generator = torch.Generator().manual_seed(1)
    observations = {}
    for name in groups:
        spec = specs[name]
        if spec.dtype == "float32":
            observations[name] = torch.randn(steps, *spec.shape, generator=generator)
        else:
            high = 1000 if spec.dtype == "int16" else 256
            values = torch.randint(0, high, (steps, *spec.shape), generator=generator)
            observations[name] = values.to(spec.torch_dtype)
    return observations


def write(folder, network=SMALL):
    actor, specs, config = make_policy(network)
    recorded = random_observations(specs, actor.groups)
    write_bundle(folder, actor, specs, config, recorded, training_commit="c0ffee")
    return actor, specs, recorded


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder, actor and recorded observations of one bundle; tests must not change the folder."""
    folder = tmp_path_factory.mktemp("bundle") / "small"
    actor, specs, recorded = write(folder)
    return folder, actor, specs, recorded


@pytest.fixture
def copy(small, tmp_path):
    """A copy of the bundle to spoil."""
    return shutil.copytree(small[0], tmp_path / "copy")


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
    assert manifest.training_commit == "c0ffee"
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


@pytest.mark.parametrize("name", ["policy.onnx", "test_vectors.npz"])
def test_changed_file_is_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: was changed"):
        load_bundle(copy)


def test_changed_manifest_is_found(copy):
    content = json.loads((copy / "manifest.json").read_text())
    content["task"]["control_hz"] = 30.0
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="was changed after export"):
        load_bundle(copy)


def test_missing_parts_are_named(copy, tmp_path):
    (copy / "test_vectors.npz").unlink()
    with pytest.raises(BundleError, match=r"test_vectors\.npz is missing"):
        load_bundle(copy)
    with pytest.raises(BundleError, match="no bundle here"):
        load_bundle(tmp_path / "nowhere")


def test_other_schema_version_is_refused(copy):
    content = json.loads((copy / "manifest.json").read_text())
    content["schema_version"] = 99
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="version 99, this program reads 1"):
        load_bundle(copy)


def manifest_values(folder):
    """What `seal_manifest` takes, to write a manifest with the right hashes over changed files."""
    manifest = read_manifest(folder)
    sealed = ("schema_version", "files", "bundle_id")
    fields = [field.name for field in dataclasses.fields(manifest) if field.name not in sealed]
    return {name: getattr(manifest, name) for name in fields}


def rewrite_vectors(folder, change):
    values = manifest_values(folder)
    vectors = read_vectors(folder / "test_vectors.npz")
    np.savez(folder / "test_vectors.npz", **change(vectors))
    seal_manifest(folder, values)


def test_policy_that_acts_otherwise_is_refused(copy):
    rewrite_vectors(copy, lambda vectors: vectors | {ACTION: vectors[ACTION] + 1e-3})
    with pytest.raises(BundleError, match=r"differ from the learner's by 1\.0"):
        load_bundle(copy)


def test_not_finite_vectors_are_refused(copy):
    rewrite_vectors(copy, lambda vectors: vectors | {ACTION: vectors[ACTION] * np.nan})
    with pytest.raises(BundleError, match="differ"):
        load_bundle(copy)


def test_too_few_test_steps_are_refused(copy):
    def shorten(vectors):
        return {key: v if key == MEMORY_IN else v[:5] for key, v in vectors.items()}

    rewrite_vectors(copy, shorten)
    with pytest.raises(BundleError, match="5 test steps, at least 16"):
        load_bundle(copy)


def test_pickled_vectors_are_refused(copy):
    values = manifest_values(copy)
    np.savez(copy / "test_vectors.npz", action=np.array([{"a": 1}], dtype=object))
    seal_manifest(copy, values)
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(copy)


def test_graph_that_does_not_fit_the_manifest_is_refused(copy):
    values = manifest_values(copy)
    seal_manifest(copy, values | {"memory_shape": (2, 1, 9)})
    with pytest.raises(BundleError, match="not those of the manifest"):
        load_bundle(copy)


def test_export_overwrites_bundles_only(small, tmp_path):
    _, actor, specs, recorded = small
    (tmp_path / "precious").mkdir()
    with pytest.raises(ConfigError, match="is no bundle"):
        write_bundle(tmp_path / "precious", actor, specs, RunConfig(network=SMALL), recorded)
    assert (tmp_path / "precious").is_dir()


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_bundle_and_no_partial_one(copy, small):
    _, actor, specs, recorded = small
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    sizes = sorted(len(content) for content in before.values())
    for limit_bytes in (0, *(size - 1 for size in sizes)):  # it strikes each file once
        for folder in (copy, copy.parent / "new"):
            with full_disk(limit_bytes), pytest.raises(ConfigError) as caught:
                write_bundle(folder, actor, specs, RunConfig(network=SMALL), recorded)
            message = str(caught.value)
            assert message.startswith(f"--out {folder}: cannot be written (File too large)")
            assert "\n" not in message
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_where_nobody_can_write_not_even_root_is_one_line(small, tmp_path):
    _, actor, specs, recorded = small
    (tmp_path / "file").write_text("")
    for place, reason in (
        (Path("/proc/bundle"), "No such file or directory"),
        (tmp_path / "file" / "bundle", "Not a directory"),
    ):
        with pytest.raises(ConfigError, match=rf"^--out {place}: cannot be written \({reason}\)"):
            write_bundle(place, actor, specs, RunConfig(network=SMALL), recorded)


@pytest.fixture
def mount(tmp_path):
    """Mounts small file systems; undone at the end of the test."""
    mounted = []

    def mount(name, options):
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode:
            pytest.skip(f"only root can mount here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


@pytest.mark.parametrize(
    ("options", "reason"),
    [("size=8k", "No space left on device"), ("ro", "Read-only file system")],
)
def test_a_file_system_that_is_full_or_read_only_is_one_line(small, mount, options, reason):
    _, actor, specs, recorded = small
    folder = mount("disk", options)
    with pytest.raises(ConfigError, match=rf"^--out .*: cannot be written \({reason}\)"):
        write_bundle(folder / "bundle", actor, specs, RunConfig(network=SMALL), recorded)
    assert not list(folder.iterdir())


def test_a_link_to_a_bundle_stays_a_link(small, copy, tmp_path):
    _, actor, specs, recorded = small
    (tmp_path / "link").symlink_to(copy)
    write_bundle(tmp_path / "link", actor, specs, RunConfig(network=SMALL), recorded)
    assert (tmp_path / "link").is_symlink()
    assert load_bundle(tmp_path / "link").manifest.training_commit == ""


def edit_manifest(folder, change, has_valid_id=False):
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    if has_valid_id:  # as of a version with other fields
        hashed = {key: value for key, value in content.items() if key != "bundle_id"}
        text = json.dumps(hashed, sort_keys=True).encode()
        content["bundle_id"] = sha256(text).hexdigest()[:16]
    file.write_text(json.dumps(content))


def refusal(folder):
    """The message with which a folder is refused; it must be one line."""
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_manifest_without_an_id_is_refused(copy):
    edit_manifest(copy, lambda content: content.pop("bundle_id"))
    assert refusal(copy) == f"{copy}/manifest.json: has no `bundle_id`; export again"


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(BundleManifest)])
def test_a_manifest_that_lacks_a_key_is_refused(copy, key):
    edit_manifest(copy, lambda content: content.pop(key), has_valid_id=key != "bundle_id")
    message = refusal(copy)
    assert "export" in message and str(copy) in message
    if key not in ("schema_version", "bundle_id"):
        assert f"`{key}` is missing" in message


@given(content=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_a_manifest_that_is_anything_else_is_refused(small, content):
    with TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_text(json.dumps(content))
        assert "export" in refusal(Path(folder))


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08"])
def test_a_graph_that_the_runtime_cannot_load_is_refused(copy, content, capfd):
    values = manifest_values(copy)
    (copy / "policy.onnx").write_bytes(content)
    seal_manifest(copy, values)
    assert refusal(copy).startswith(f"{copy}/policy.onnx: onnxruntime ")
    assert capfd.readouterr().err == "", "the runtime must not add lines of its own"


def test_a_graph_that_does_not_run_is_refused(copy):
    """Its vectors have another type than the inputs."""
    rewrite_vectors(
        copy, lambda vectors: vectors | {"proprio": vectors["proprio"].astype(np.float64)}
    )
    assert "the policy does not run on its test vectors" in refusal(copy)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"\x93NUMPY"])
def test_vectors_that_are_no_archive_are_refused(copy, content):
    values = manifest_values(copy)
    (copy / "test_vectors.npz").write_bytes(content)
    seal_manifest(copy, values)
    assert "export again" in refusal(copy)


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
    assert manifest.training_commit == "beef"


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
