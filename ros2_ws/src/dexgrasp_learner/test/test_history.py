"""What a run folder keeps of its settings and of the files that they name."""

import json
from pathlib import Path

import pytest
import trimesh
import yaml

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.storage.history import (
    changed_files,
    check_files,
    config_changes,
    file_hashes,
    load_settings,
    read_history,
    record_start,
)
from dexgrasp_learner.storage.run_folder import create_run_folder
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.robot.robot import load_robot
from test_support.full_disk import full_disk


def with_iterations(iterations, config=None):
    config = config or RunConfig()
    return replace(config, training=replace(config.training, iterations=iterations))


def with_mesh(path, extent_m=0.05):
    """A config with a mesh file, which is written."""
    trimesh.creation.box((extent_m, extent_m, extent_m)).export(path)
    item = ObjectConfig("thing", "mesh", path=path)
    return replace(RunConfig(), task=replace(RunConfig().task, objects=(item,)))


def test_changes_are_named_by_their_keys():
    old, new = with_iterations(3), with_iterations(5)
    assert config_changes(old, old) == {}
    assert config_changes(old, new) == {"training.iterations": (3, 5)}
    new = replace(new, seed=8)
    assert config_changes(old, new) == {"seed": (0, 8), "training.iterations": (3, 5)}


def test_each_start_is_a_line_and_the_config_is_the_last_one(tmp_path):
    folder = create_run_folder(tmp_path, "run", with_iterations(3))
    record_start(folder, with_iterations(5), 3, {"training.iterations": (3, 5)})
    first, second = read_history(folder)
    assert (first["iteration"], first["changes"]) == (0, {})
    assert (second["iteration"], second["changes"]) == (3, {"training.iterations": 5})
    assert load_settings(folder) == with_iterations(5)
    assert load_settings(folder, ["training.iterations=7"]) == with_iterations(7)


def test_a_full_disk_leaves_the_settings_as_they_were(tmp_path):
    folder = create_run_folder(tmp_path, "run", with_iterations(3))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        record_start(folder, with_iterations(5), 3)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_damaged_line_of_the_history_costs_no_other(tmp_path):
    folder = create_run_folder(tmp_path, "run", with_iterations(3))
    with (folder / "history.jsonl").open("ab") as file:
        file.write(b'{"iteration": 1, "cha\n\0\0\0\xff\n[1]\n')
    record_start(folder, with_iterations(5), 3)
    assert [line["iteration"] for line in read_history(folder)] == [0, 3]
    for line in (folder / "history.jsonl").read_text().splitlines():
        json.loads(line)


def test_settings_that_are_empty_are_not_taken_for_defaults(tmp_path):
    folder = create_run_folder(tmp_path, "run", with_iterations(3))
    (folder / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"config\.yaml: is empty; restore it"):
        load_settings(folder)


def test_a_changed_mesh_file_is_noticed_by_its_contents(tmp_path):
    mesh = tmp_path / "thing.stl"
    config = with_mesh(mesh)
    folder = create_run_folder(tmp_path, "run", config)
    content = mesh.read_bytes()
    mesh.write_bytes(content)  # another time of change, the same contents
    check_files(folder, config)
    with_mesh(mesh, extent_m=0.06)
    with pytest.raises(ConfigError, match=rf"^{mesh}: changed since .*--allow-changed-files$"):
        check_files(folder, config)
    record_start(folder, config, 3)  # as after that option
    check_files(folder, config)
    mesh.write_bytes(content)
    assert changed_files(folder, config) == [str(mesh)], "the last start counts"


def test_another_mesh_file_instead_of_the_first_is_no_changed_file(tmp_path):
    folder = create_run_folder(tmp_path, "run", with_mesh(tmp_path / "first.stl"))
    check_files(folder, with_mesh(tmp_path / "second.stl"))


def test_a_missing_mesh_file_is_said_before_there_is_a_run_folder(tmp_path):
    config = with_mesh(tmp_path / "thing.stl")
    (tmp_path / "thing.stl").unlink()
    with pytest.raises(ConfigError, match=r"thing\.stl: cannot be read \(No such file"):
        create_run_folder(tmp_path / "runs", "run", config)
    assert not (tmp_path / "runs").exists()


def test_a_robot_given_by_path_is_noticed_too(tmp_path):
    robot = load_robot()
    for file in robot.path.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / robot.path.name
    config = load_run_config(write_config(tmp_path / "run.yaml", path))
    assert file_hashes(config) == {str(path): load_robot(path).sha256}
    assert file_hashes(RunConfig()) == {}, "a robot of this package changes with its commit"


def write_config(file: Path, robot: Path) -> Path:
    file.write_text(yaml.safe_dump({"task": {"robot": str(robot)}}))
    return file
