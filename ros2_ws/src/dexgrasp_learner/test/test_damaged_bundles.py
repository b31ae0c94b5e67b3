"""Damaged, changed and outdated bundles, and disks that are full, are refused in one line."""

import dataclasses
import json
import subprocess
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_learner.commands.export import write_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.storage.bundle import (
    ACTION,
    MEMORY_IN,
    SCHEMA_VERSION,
    BundleError,
    BundleManifest,
    load_bundle,
    seal_manifest,
)
from dexgrasp_sim.config import ConfigError
from test_support.bundles import SMALL, manifest_values, rewrite_vectors
from test_support.full_disk import full_disk


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
    with pytest.raises(BundleError, match=f"version 99, this program reads {SCHEMA_VERSION}"):
        load_bundle(copy)


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
    assert load_bundle(tmp_path / "link").manifest.origin.commit == ""


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
