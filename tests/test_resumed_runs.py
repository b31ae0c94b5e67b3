"""Run folders as people treat them: copied, gone back in, damaged, resumed with other settings."""

import json
import re
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
import trimesh
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dexgrasp_deploy.commands.cli import main
from dexgrasp_learner.storage.checkpoint import load_state
from dexgrasp_learner.storage.checkpoint_files import find_checkpoint, seal
from dexgrasp_learner.storage.history import load_settings, read_history
from test_support.full_disk import full_disk

pytestmark = pytest.mark.slow

SMOKE = Path(__file__).parents[1] / "config" / "smoke.yaml"
TINY = [
    "simulators.transport=in_process",
    "simulators.num_envs=8",
    "training.horizon=2",
    "training.iterations=6",
    "training.checkpoint_every=2",
    "ppo.gamma=0.95",
    "network.actor_groups=[proprio, state]",
    "network.critic_groups=[critic]",
]


@pytest.fixture(autouse=True)
def restore_torch():
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 6 iterations with checkpoints of iterations 2, 4 and 6; tests take a copy."""
    runs = tmp_path_factory.mktemp("finished")
    options = [f"--set={override}" for override in TINY]
    assert main(["train", str(SMOKE), "--runs", str(runs), *options]) == 0
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run", symlinks=True)


@pytest.fixture
def dx(capsys):
    """Runs a command in this process; returns exit code, stdout and stderr."""

    def dx(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments)])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    return dx


def iterations_in(folder):
    """Iterations of the records of a run, in order."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


def refused(answer):
    """The only line of a command that was refused."""
    code, out, err = answer
    assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
    return err


def test_a_finished_run_says_that_nothing_is_left_and_how_to_go_on(run, dx):
    code, out, err = dx("train", "--resume", run, "--json")
    assert code == 0 and json.loads(out)["iterations"] == 6
    (advice,) = re.findall(r"nothing left to do: 6 iterations.*(--set training.*)\n", err)
    code, _, err = dx("train", "--resume", run, *advice.split())
    assert code == 0 and "nothing left" not in err
    assert iterations_in(run) == [*range(1, 13)]


def test_a_setting_given_on_a_resume_holds_from_then_on(run, dx):
    more = ["--set", "training.iterations=8", "--set", "ppo.gamma=0.9"]
    code, _, err = dx("train", "--resume", run, *more)
    said = "from iteration 6 on with ppo.gamma = 0.9 (was 0.95), training.iterations = 8 (was 6)"
    assert code == 0 and said in err
    config = load_settings(run)
    assert (config.training.iterations, config.ppo.gamma) == (8, 0.9)
    assert dx("train", "--resume", run, "--set", "training.iterations=10")[0] == 0
    assert load_settings(run).ppo.gamma == 0.9
    assert load_state(find_checkpoint(run))["config"]["ppo"]["gamma"] == 0.9
    assert [(line["iteration"], line["changes"]) for line in read_history(run)] == [
        (0, {}),
        (6, {"ppo.gamma": 0.9, "training.iterations": 8}),
        (8, {"training.iterations": 10}),
    ]


def test_a_setting_that_is_refused_leaves_the_run_as_it_was(run, dx):
    before = (run / "config.yaml").read_bytes(), (run / "history.jsonl").read_bytes()
    message = refused(dx("train", "--resume", run, "--set", "network.hidden=[8]"))
    assert "`network.hidden` = [8]" in message
    assert before == ((run / "config.yaml").read_bytes(), (run / "history.jsonl").read_bytes())


@pytest.mark.parametrize("kind", ["dereferenced", "without links"])
def test_a_copy_without_links_is_as_good_as_the_run(run, tmp_path, dx, kind):
    copy = shutil.copytree(run, tmp_path / "copy")  # follows links, as `cp -rL` and `scp -r`
    latest = copy / "checkpoints" / "latest"
    assert latest.is_dir() and not latest.is_symlink()
    if kind == "without links":
        shutil.rmtree(latest)
    for last in (8, 10):  # by then the folder `latest` would be a stale copy
        code, out, err = dx(
            "train", "--resume", copy, "--json", "--set", f"training.iterations={last}"
        )
        assert code == 0 and "free some space" not in err
        checkpoint = Path(json.loads(out)["checkpoint"])
        assert checkpoint == find_checkpoint(copy)
        assert load_state(checkpoint)["iteration"] == last
        assert latest.is_symlink() and latest.resolve() == checkpoint


def test_going_back_keeps_what_came_later_as_a_run_of_its_own(run, dx):
    last = (run / "checkpoints" / "iteration_000006" / "actor.safetensors").read_bytes()
    older = run / "checkpoints" / "iteration_000004"
    more = ["--set", "training.iterations=5", "--set", "ppo.gamma=0.9"]
    code, out, err = dx("train", "--resume", older, "--json", *more)
    aside = run / "set_aside_after_000004"
    assert code == 0 and f"back to iteration 4; what came later is now in {aside}\n" in err
    assert json.loads(out)["checkpoint"] == str(run / "checkpoints" / "iteration_000005")
    assert iterations_in(run) == [1, 2, 3, 4, 5]
    assert iterations_in(aside) == [1, 2, 3, 4, 5, 6]
    assert (find_checkpoint(aside) / "actor.safetensors").read_bytes() == last
    code, out, _ = dx("train", "--resume", aside, "--json", "--set", "training.iterations=7")
    assert code == 0 and json.loads(out)["iterations"] == 7
    assert load_settings(aside).ppo.gamma == 0.95


def test_going_back_trains_as_the_run_did_then(run, dx):
    last = (run / "checkpoints" / "iteration_000006" / "actor.safetensors").read_bytes()
    assert dx("train", "--resume", run / "checkpoints" / "iteration_000002")[0] == 0
    assert (find_checkpoint(run) / "actor.safetensors").read_bytes() == last


def test_several_learners_do_not_go_back(run, dx, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    older = run / "checkpoints" / "iteration_000004"
    message = refused(dx("train", "--distributed", "--resume", older))
    assert f"say --resume {run}" in message


FILES = ("state.json", "actor.safetensors", "training.pt", "simulators/worker_1.safetensors")


@pytest.mark.parametrize(
    ("name", "has_checksums"),
    [*product(FILES, [True, False]), ("checksums.json", True)],
)
def test_a_truncated_file_is_one_line_that_names_it_and_the_way_back(run, dx, name, has_checksums):
    damaged, older = (run / "checkpoints" / f"iteration_{number:06d}" for number in (6, 4))
    (damaged / name).write_bytes((damaged / name).read_bytes()[:-20])
    if not has_checksums:  # as earlier versions wrote them
        for checkpoint in (damaged, older):
            (checkpoint / "checksums.json").unlink()
    message = refused(dx("train", "--resume", run))
    assert f"{damaged}/{name}: " in message and message.endswith(f"whole: {older}\n")
    assert dx("train", "--resume", older)[0] == 0
    assert load_state(find_checkpoint(run))["iteration"] == 6


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_other_readers_of_a_checkpoint_say_it_too(run, tmp_path, dx, command):
    damaged = run / "checkpoints" / "iteration_000006" / "actor.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    more = ["--out", tmp_path / "bundle"] if command == "export" else ["--episodes", "1"]
    message = refused(dx(command, run, *more))
    assert f"{damaged}: is truncated" in message and "iteration_000004" in message
    code, _, err = dx("evaluate", run / "checkpoints" / "iteration_000004", "--episodes", "1")
    assert code == 0, err


def edit(checkpoint, change):
    """Makes it a whole checkpoint of a version that wrote another `state.json`."""
    state = json.loads((checkpoint / "state.json").read_text())
    change(state)
    (checkpoint / "state.json").write_text(json.dumps(state))
    seal(checkpoint)


def drop(*keys):
    """Removes a nested key of a state."""

    def change(state):
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return change


@pytest.mark.parametrize(
    "keys", [("adr",), ("episodes",), ("config", "adr"), ("config", "ppo", "gamma")]
)
def test_a_checkpoint_of_a_version_without_a_key_that_has_a_default_goes_on(run, dx, keys):
    edit(run / "checkpoints" / "iteration_000006", drop(*keys))
    code, out, err = dx("train", "--resume", run, "--json", "--set", "training.iterations=7")
    assert code == 0, err
    assert json.loads(out)["iterations"] == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("env_steps"), "lacks 'env_steps'"),
        (drop("schema_hash"), "lacks 'schema_hash'"),
        (drop("adr", "success"), "lacks 'success'"),
        (drop("episodes", "rows"), "lacks 'rows'"),
        (lambda state: state["config"].update(lamp=3), "unknown key `lamp`"),
    ],
)
def test_one_that_does_not_fit_this_version_says_what_is_different(run, dx, change, words):
    edit(run / "checkpoints" / "iteration_000006", change)
    message = refused(dx("train", "--resume", run))
    assert "iteration_000006/state.json: " in message and words in message
    assert f"run.json and history.jsonl in {run} name the commit" in message


def test_a_training_state_that_lacks_an_inner_key_says_so(run, dx):
    checkpoint = run / "checkpoints" / "iteration_000006"
    training = torch.load(checkpoint / "training.pt", weights_only=True)
    del training["memory"]["actor"]
    torch.save(training, checkpoint / "training.pt")
    seal(checkpoint)
    assert "training.pt: lacks 'actor'" in refused(dx("train", "--resume", run))


@pytest.mark.parametrize("transport", ["in_process", "shared_memory"])
def test_a_simulator_state_that_lacks_a_key_says_so(run, dx, transport):
    checkpoint = run / "checkpoints" / "iteration_000006"
    file = checkpoint / "simulators" / "worker_0.safetensors"
    tensors = load_file(file)
    del tensors["result.reward"]
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(tensors, file, metadata)
    seal(checkpoint)
    answer = dx("train", "--resume", run, "--set", f"simulators.transport={transport}")
    assert f"{file}: lacks 'result.reward'" in refused(answer)


def test_records_damaged_by_a_power_failure_cost_no_others(run, dx):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(bytes(100) + b'}\n{"iteration": 7}\xff\n[]}\n')
    assert dx("train", "--resume", run, "--set", "training.iterations=8")[0] == 0
    assert iterations_in(run) == [*range(1, 9)]


def test_a_disk_that_is_full_at_a_resume_is_one_line(run, dx):
    before = (run / "config.yaml").read_bytes()
    with full_disk(100):
        code, out, err = dx("train", "--resume", run, "--set", "training.iterations=8")
    assert (code, out) == (1, "") and "File too large" in err
    assert (run / "config.yaml").read_bytes() == before
    assert dx("train", "--resume", run)[0] == 0


def test_a_mesh_file_that_changed_is_refused_until_it_is_allowed(tmp_path, dx):
    mesh = tmp_path / "thing.stl"
    trimesh.creation.box((0.05, 0.05, 0.05)).export(mesh)
    objects = f"task.objects=[{{name: thing, shape: mesh, path: {mesh}}}]"
    options = [f"--set={override}" for override in (*TINY, objects, "training.iterations=1")]
    code, out, err = dx("train", SMOKE, "--runs", tmp_path / "runs", "--json", *options)
    assert code == 0, err
    run = json.loads(out)["run_dir"]
    trimesh.creation.box((0.06, 0.05, 0.05)).export(mesh)
    message = refused(dx("train", "--resume", run))
    assert f"{mesh}: changed since" in message and "--allow-changed-files" in message
    code, _, err = dx("evaluate", run, "--episodes", "1")
    assert code == 0 and f"{mesh}: changed since the training" in err
    more = ["--allow-changed-files", "--set", "training.iterations=2"]
    assert dx("train", "--resume", run, *more)[0] == 0
    assert dx("train", "--resume", run)[0] == 0, "it is known from then on"
