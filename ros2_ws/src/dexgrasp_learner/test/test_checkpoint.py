"""Checkpoints survive whatever happens while one is written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_learner.storage.checkpoint import (
    check_resumable,
    load_actor,
    load_state,
    load_training,
    policy_schema,
    save_checkpoint,
)
from dexgrasp_learner.storage.checkpoint_files import DamagedCheckpoint, find_checkpoint, seal
from dexgrasp_learner.storage.set_aside import set_aside_later
from dexgrasp_sim.config import ConfigError, replace, to_dict
from dexgrasp_sim.tasks.grasp.observations import all_specs
from test_support.full_disk import full_disk

torch.set_num_threads(1)

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
CONFIG = load_run_config(SMOKE)
TIMEOUT_S = 60.0


def make_actor(config=CONFIG, seed=0):
    actions = len(config.task.action_names)
    return build_actor(
        config.network,
        all_specs(config.task),
        actions,
        seed=seed,
        view=config.table_view,
    )


def save(parent, iteration, save_simulators=None, config=CONFIG):
    """Saves an actor whose weights depend on the iteration; returns the folder."""
    actor = make_actor(config, seed=iteration)
    return save_checkpoint(
        parent,
        iteration,
        actor,
        training={"algorithm": {"step": iteration, "tensor": torch.arange(3)}, "memory": {}},
        state={"schema_hash": policy_schema(actor, config.task), "config": to_dict(config)},
        save_simulators=save_simulators or (lambda folder: None),
    )


def test_an_actor_comes_with_the_difficulty_that_it_was_trained_at(tmp_path):
    """The bundle that is made of it then has the damping of that difficulty."""
    actor = make_actor(CONFIG, seed=1)
    state = {
        "schema_hash": policy_schema(actor, CONFIG.task),
        "config": to_dict(CONFIG),
        "adr": {"difficulty": 0.62, "increment": 31, "episodes": 5, "success": 0.5},
    }
    training = {"algorithm": {}, "memory": {}}
    folder = save_checkpoint(tmp_path, 1, actor, training, state, lambda folder: None)
    config = load_actor(folder)[1]
    assert config == replace(CONFIG, task=replace(CONFIG.task, difficulty=0.62))


def edit_state(checkpoint, change):
    """Makes it the checkpoint of a version that writes another `state.json`."""
    state = change(json.loads((checkpoint / "state.json").read_text()))
    (checkpoint / "state.json").write_text(json.dumps(state))
    seal(checkpoint)


def names(parent):
    return sorted(path.name for path in parent.iterdir())


def is_whole(checkpoint, iteration):
    """Whether a checkpoint holds all that belongs to an iteration."""
    actor, config, _ = load_actor(checkpoint)
    wanted = make_actor(seed=iteration).state_dict()
    return (
        config == CONFIG
        and load_state(checkpoint)["iteration"] == iteration
        and load_training(checkpoint, ["step", "tensor"])["algorithm"]["step"] == iteration
        and all(torch.equal(value, wanted[name]) for name, value in actor.state_dict().items())
    )


def test_everything_comes_back(tmp_path):
    def simulators(folder):
        (folder / "worker_0.safetensors").write_bytes(b"state")

    folder = save(tmp_path / "checkpoints", 12, simulators)
    assert folder.name == "iteration_000012"
    assert is_whole(folder, 12)
    assert (folder / "simulators" / "worker_0.safetensors").read_bytes() == b"state"
    training = load_training(folder, ["step", "tensor"])
    assert torch.equal(training["algorithm"]["tensor"], torch.arange(3))
    actor, _, specs = load_actor(folder)
    assert not actor.training
    assert specs == all_specs(CONFIG.task)


def test_a_checkpoint_is_found_by_run_folder_folder_of_checkpoints_and_itself(tmp_path):
    older, newer = (save(tmp_path / "checkpoints", iteration) for iteration in (1, 2))
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "latest", newer):
        assert find_checkpoint(path) == newer.resolve()
    assert find_checkpoint(older) == older.resolve()


@pytest.mark.parametrize("name", ["", "nowhere", "file"])
def test_where_there_is_none_the_path_is_named(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"{tmp_path / name}: no checkpoint there"):
        find_checkpoint(tmp_path / name)


def test_the_newest_three_stay(tmp_path):
    for iteration in (5, 10, 15, 20, 25):
        save(tmp_path, iteration)
    assert names(tmp_path) == [
        "iteration_000015",
        "iteration_000020",
        "iteration_000025",
        "latest",
    ]
    assert os.readlink(tmp_path / "latest") == "iteration_000025"


def test_going_back_sets_the_later_ones_aside_as_a_run_of_their_own(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    for iteration in (5, 10, 15):
        save(checkpoints, iteration)
    (tmp_path / "metrics.jsonl").write_text("records")
    aside = set_aside_later(tmp_path, 5)
    assert aside is not None and aside == tmp_path / "set_aside_after_000005"
    assert is_whole(find_checkpoint(tmp_path), 5)
    assert is_whole(find_checkpoint(aside), 15)
    assert is_whole(aside / "checkpoints" / "iteration_000010", 10)
    assert (aside / "metrics.jsonl").read_text() == "records"
    save(checkpoints, 6)
    assert is_whole(find_checkpoint(tmp_path), 6)
    assert set_aside_later(tmp_path, 6) is None, "nothing is later"
    another = set_aside_later(tmp_path, 5)
    assert another == tmp_path / "set_aside_after_000005_2", "none is overwritten"


def test_later_ones_that_cannot_be_set_aside_stay_in_place(tmp_path):
    for iteration in (5, 10):
        save(tmp_path / "checkpoints", iteration)
    (tmp_path / "metrics.jsonl").write_bytes(bytes(1000))
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        set_aside_later(tmp_path, 5)
    assert names(tmp_path) == ["checkpoints", "metrics.jsonl"]
    assert is_whole(find_checkpoint(tmp_path), 10)


def test_saving_an_iteration_again_replaces_it(tmp_path):
    save(tmp_path, 3, lambda folder: (folder / "old").write_text(""))
    folder = save(tmp_path, 3, lambda folder: (folder / "new").write_text(""))
    assert names(folder / "simulators") == ["new"]
    assert names(tmp_path) == ["iteration_000003", "latest"]


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_the_last_one_and_no_rubbish(tmp_path, error):
    save(tmp_path, 1)

    def fail(folder):
        (folder / "half").write_text("half")
        raise error("on request")

    for iteration in (1, 2):  # also when it was to replace the last one
        with pytest.raises(error, match="on request"):
            save(tmp_path, iteration, fail)
        assert names(tmp_path) == ["iteration_000001", "latest"]
        assert is_whole(find_checkpoint(tmp_path), 1)


@pytest.mark.parametrize("limit_bytes", [0, 50_000])
def test_a_full_disk_is_an_os_error_whatever_file_it_strikes(tmp_path, limit_bytes):
    save(tmp_path, 1)
    with full_disk(limit_bytes), pytest.raises(OSError, match="File too large"):
        save(tmp_path, 2)
    assert names(tmp_path) == ["iteration_000001", "latest"]
    assert is_whole(find_checkpoint(tmp_path), 1)


def test_a_large_training_state_on_a_full_disk_is_an_os_error(tmp_path):
    actor = make_actor()
    training = {"algorithm": {"tensor": torch.zeros(1_000_000)}}
    with full_disk(2_000_000), pytest.raises(OSError, match="File too large"):
        save_checkpoint(tmp_path / "checkpoints", 1, actor, training, {}, lambda folder: None)


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_checkpoint import save

def simulators(folder):
    (folder / "worker_0.safetensors").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(600)

save(Path({parent!r}), 2, simulators)
"""


@pytest.mark.slow
def test_a_process_killed_while_writing_leaves_the_last_one(tmp_path):
    save(tmp_path, 1)
    code = CHILD.format(folder=str(Path(__file__).parent), parent=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    child.kill()
    child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == -signal.SIGKILL
    leftovers = set(names(tmp_path)) - {"iteration_000001", "latest"}
    assert len(leftovers) == 1
    assert is_whole(find_checkpoint(tmp_path), 1)
    save(tmp_path, 7)
    assert names(tmp_path) == ["iteration_000001", "iteration_000007", "latest"]
    assert is_whole(find_checkpoint(tmp_path), 7)


class Harmful:
    """What a pickle that runs code when it is read looks like."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_loading_runs_no_code_from_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path, 1)
    torch.save({"algorithm": Harmful()}, folder / "training.pt")
    with pytest.raises(DamagedCheckpoint, match=r"training\.pt: cannot be read.*weights_only"):
        load_training(folder, [])
    assert not (tmp_path / "harm").exists()


def test_the_state_of_another_algorithm_is_refused(tmp_path):
    folder = save(tmp_path, 1)
    with pytest.raises(ConfigError, match=r"has \['step', 'tensor'\], needed are \['critic'\]"):
        load_training(folder, ["critic"])
    load_training(folder, ["step", "tensor", "auxiliary_phase"])  # may begin later


def test_an_actor_for_other_observations_is_refused(tmp_path):
    folder = save(tmp_path, 1)
    edit_state(folder, lambda state: state | {"schema_hash": "0123456789abcdef"})
    with pytest.raises(ConfigError, match=r"made for observations 0123456789abcdef.*run\.json"):
        load_actor(folder)


def test_the_schema_hash_covers_what_the_actor_reads_and_nothing_else():
    actor = make_actor()
    schema = policy_schema(actor, CONFIG.task)
    wider = load_run_config(SMOKE, ["task.camera.width=40"])
    slower = load_run_config(SMOKE, ["task.episode_s=3", "task.success.hold_s=1"])
    assert policy_schema(actor, wider.task) != schema
    assert policy_schema(actor, slower.task) == schema


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("network.hidden=[16]", ["`network.hidden` = [16]", "[32]"]),
        ("network.memory=none", ["`network.memory` = 'none'", "'lstm'"]),
        ("simulators.num_envs=32", ["`simulators.num_envs` = 32", "16"]),
        ("task.camera.width=40", ["`task.camera.width` = 40", "32"]),
        ("task.action={kind: fabric}", ["`task.action.kind` = 'fabric'", "'velocity'"]),
        ("ppo.learning_rate=0.002", ["`ppo.learning_rate` = 0.002", "0.001"]),
    ],
)
def test_a_run_cannot_go_on_with_what_the_checkpoint_brings_along_changed(
    tmp_path, override, words
):
    folder = save(tmp_path, 1)
    with pytest.raises(ConfigError) as caught:
        check_resumable(folder, load_run_config(SMOKE, [override]))
    assert all(word in str(caught.value) for word in [str(folder), *words])


@pytest.mark.parametrize(
    "override",
    ["training.iterations=99", "simulators.transport=in_process", "ppo.gamma=0.9", "name=other"],
)
def test_a_run_can_go_on_with_other_values_changed(tmp_path, override):
    check_resumable(save(tmp_path, 1), load_run_config(SMOKE, [override]))
