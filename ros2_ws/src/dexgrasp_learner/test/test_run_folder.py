"""What a run folder says about a run."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.storage.run_folder import create_run_folder, new_run_id
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.version import git_commit
from test_support.full_disk import full_disk


def test_it_holds_the_resolved_config_and_the_provenance(tmp_path):
    config = replace(RunConfig(), name="probe", seed=7)
    folder = create_run_folder(tmp_path / "deep" / "runs", config.name, config)
    assert re.fullmatch(r"probe_\d{8}_\d{6}", folder.name)
    assert load_run_config(folder / "config.yaml") == config
    assert (folder / "logs").is_dir()
    run = json.loads((folder / "run.json").read_text())
    assert run["torch"] == torch.__version__
    assert run["commit"] == git_commit()
    assert run["hardware"]["cores"] >= 1 and run["hardware"]["memory_gb"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", run["started"])


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(
            pool.map(
                lambda _: create_run_folder(tmp_path, "probe", RunConfig(), "probe_1"), range(8)
            )
        )
    names = {folder.name for folder in folders}
    assert names == {"probe_1", *(f"probe_1_{number}" for number in range(2, 9))}
    assert all((folder / "run.json").is_file() for folder in folders)


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--runs") as caught:
        create_run_folder(tmp_path / "file" / "runs", "probe", RunConfig())
    assert "Not a directory" in str(caught.value)


def test_a_full_disk_leaves_no_half_a_folder(tmp_path):
    for limit_bytes in (0, 1000):  # it strikes the record of the run, and its settings
        with full_disk(limit_bytes), pytest.raises(ConfigError, match="File too large; free some"):
            create_run_folder(tmp_path / "runs", "probe", RunConfig())
    assert not list((tmp_path / "runs").iterdir())


def test_run_ids_start_with_the_name():
    assert re.fullmatch(r"laptop_\d{8}_\d{6}", new_run_id("laptop"))


def test_the_commit_is_that_of_this_repository():
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", git_commit())
