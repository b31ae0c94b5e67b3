"""What a run's configuration accepts, and how it says what it does not accept."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.run.assembly import build_distillation, build_ppo
from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.vec_env import allocate

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"


@pytest.fixture
def write(tmp_path):
    """Writes a YAML file and returns its path."""

    def write(values, name="run.yaml"):
        path = tmp_path / name
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return path

    return write


def test_an_empty_file_gives_the_defaults(write):
    assert load_run_config(write("")) == RunConfig()


def test_a_resolved_config_gives_itself_when_read_again(write):
    config = load_run_config(SMOKE, ["training.max_minutes=2.5", "network.hidden=[8, 4]"])
    assert config.network.hidden == (8, 4)
    assert load_run_config(write(to_dict(config))) == config


def test_overrides_win_over_the_file_and_the_file_over_its_base(write):
    write({"seed": 1, "training": {"horizon": 3, "iterations": 4}}, "base.yaml")
    path = write({"base": "base.yaml", "training": {"horizon": 5}})
    config = load_run_config(path, ["training.iterations=6"])
    assert (config.seed, config.training.horizon, config.training.iterations) == (1, 5, 6)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.horizn=4", ["`training.horizn`", "unknown key"]),
        ("horizon=4", ["`horizon`", "unknown key"]),
        ("training.horizon=many", ["`training.horizon` = 'many'", "integer"]),
        ("training.horizon=2.5", ["`training.horizon` = 2.5", "integer"]),
        ("training.horizon=0", ["`training.horizon` = 0", "greater than 0"]),
        ("training.deterministic=7", ["`training.deterministic` = 7", "boolean"]),
        ("training.max_minutes=-1", ["`training.max_minutes` = -1", "greater than 0"]),
        ("training.target_success=1.5", ["`training.target_success` = 1.5", "equal to 1"]),
        ("simulators.transport=tcp", ["`simulators.transport` = 'tcp'", "'shared_memory'"]),
        ("simulators.num_workers=17", ["16 environments", "17 workers"]),
        ("network.depth_far_m=2.0", ["`network.depth_far_m`", "unknown key"]),
        ("network.memory=gru", ["`network.memory` = 'gru'", "'none'", "'lstm'"]),
        ("task.camera.width=0", ["`task.camera.width` = 0", "greater than or equal to 1"]),
        ("task.control_hz=17", ["control_hz 17.0", "physics steps", "physics.timestep_s"]),
        ("seed=-1", ["`seed` = -1", "greater than or equal to 0"]),
        ("name=../elsewhere", ["`name` = '../elsewhere'", "pattern"]),
        ("name=''", ["`name` = ''", "pattern"]),
        ("network.hidden=[1000000000000]", ["`network.hidden.0`", "less than or equal to 65536"]),
        ("network.memory_size=1000000000", ["`network.memory_size`", "equal to 65536"]),
        (
            "simulators.threads_per_worker=1e9",
            ["`simulators.threads_per_worker`", "equal to 1024"],
        ),
        ("training.update_threads=4096", ["`training.update_threads` = 4096", "equal to 1024"]),
        ("simulators.timeout_s=1e300", ["`simulators.timeout_s`", "at most 1e+06 s"]),
        ("training.max_minutes=1e9", ["`training.max_minutes`", "at most 1e+06 min"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override, words):
    with pytest.raises(ConfigError) as caught:
        load_run_config(SMOKE, [override])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"--set {override}: ")
    for word in words:
        assert word in message


def test_only_the_algorithm_in_use_is_checked():
    config = load_run_config(SMOKE, ["distillation.minibatches=32", "ppo.minibatches=16"])
    ppo = build_ppo(config)
    message = r"distillation\.minibatches \* micro_batches = 32 is more than .*num_envs = 16"
    with pytest.raises(ConfigError, match=message):
        build_distillation(config, ppo.actor)
    with pytest.raises(ConfigError, match=r"ppo\.minibatches \* micro_batches = 32"):
        build_ppo(load_run_config(SMOKE, ["ppo.minibatches=8", "ppo.micro_batches=4"]))


def test_ppo_with_four_environments_does_not_mind_the_minibatches_of_distillation():
    assert RunConfig().distillation.minibatches == 8
    build_ppo(load_run_config(SMOKE, ["simulators.num_envs=4"]))


@pytest.mark.parametrize("overrides", [["training.horizon=1"], ["training.horizon=1", "seed=4"]])
def test_a_rollout_of_one_step_is_refused_by_name(overrides):
    one = ["simulators.num_envs=1", "simulators.num_workers=1", "ppo.minibatches=1"]
    with pytest.raises(ConfigError, match=r"num_envs 1 and training\.horizon 1: .*normalised"):
        build_ppo(load_run_config(SMOKE, [*one, *overrides]))
    build_ppo(load_run_config(SMOKE, [*one, "training.horizon=2"]))


AWAY = ["task.camera.look_at_m=[-0.55, 1.0, 1.5]"]
GAP = ["adr.retreat_below=0.7"]
RATES = ["ppo.min_learning_rate=0.01"]


@pytest.mark.parametrize(
    ("wrong", "unused", "words"),
    [
        (AWAY, ["network.actor_groups=[proprio, state]"], r"`task\.camera` sees 0% of the spawn"),
        (["adr.enabled=true", *GAP], ["adr.enabled=false"], r"`retreat_below` 0\.7 is not below"),
        (
            RATES,
            ["ppo.schedule=fixed"],
            r"learning_rate 0\.001 is not from min_learning_rate",
        ),
    ],
)
def test_what_is_not_used_is_not_checked(wrong, unused, words):
    with pytest.raises(ConfigError, match=words):
        load_run_config(SMOKE, wrong)
    load_run_config(SMOKE, [*wrong, *unused])


@pytest.mark.parametrize("seed", [2**32, 2**63, 2**64 - 1])
def test_the_range_of_seeds_is_stated(seed):
    with pytest.raises(ConfigError, match=r"`seed` = \d+: .* less than or equal to 4294967295"):
        load_run_config(SMOKE, [f"seed={seed}"])


def test_the_largest_seed_works():
    config = load_run_config(SMOKE, ["seed=4294967295"])
    build_ppo(config)
    env = make_grasp_env(config.task, 2, config.seed, 1, ("state",))
    try:
        env.reset(allocate(env))
    finally:
        env.close()


def test_every_path_of_a_file_counts_from_that_file(write, tmp_path, monkeypatch):
    robot = load_robot("franka_leap")
    shutil.copytree(robot.path.parent, tmp_path / "robots" / "mine")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    values = {
        "task": {
            "robot": "robots/mine/robot.yaml",
            "objects": [{"name": "cup", "shape": "mesh", "path": "meshes/cup.obj"}],
        },
        "simulators": {"python": "venv/bin/python", "workers": [{"num_envs": 2, "python": "py3"}]},
    }
    config = load_run_config(write(values))
    assert config.task.robot == str(tmp_path / "robots" / "mine" / "robot.yaml")
    assert config.task.objects[0].path == tmp_path / "meshes" / "cup.obj"
    assert config.simulators.python == str(tmp_path / "venv" / "bin" / "python")
    assert config.simulators.workers[0].python == "py3"  # looked up in PATH
    command_line = ["simulators.python=./python", "task.robot=../robots/mine/robot.yaml"]
    config = load_run_config(write(values), command_line)
    assert config.simulators.python == str(tmp_path / "work" / "python")
    assert config.task.robot == str(tmp_path / "robots" / "mine" / "robot.yaml")


def test_a_key_of_a_robot_file_given_twice_is_refused(tmp_path):
    folder = shutil.copytree(load_robot("franka_leap").path.parent, tmp_path / "mine")
    with (folder / "robot.yaml").open("a") as file:
        file.write("\narm: []\n")
    with pytest.raises(
        ConfigError, match=r"robot\.yaml: key `arm` is given in line \d+ and again"
    ):
        load_run_config(SMOKE, [f"task.robot={folder / 'robot.yaml'}"])


def test_nets_without_memory_deal_out_single_steps():
    memoryless = ["network.memory=none", "network.critic_memory=none", "training.horizon=3"]
    build_ppo(load_run_config(SMOKE, [*memoryless, "ppo.minibatches=48"]))
    with pytest.raises(ConfigError, match=r"= 49 is more than .*num_envs \* .*horizon = 48"):
        build_ppo(load_run_config(SMOKE, [*memoryless, "ppo.minibatches=49"]))


def test_the_nets_see_depth_as_far_as_the_camera():
    config = load_run_config(SMOKE, ["task.camera.far_m=0.8", "network.actor_groups=[depth]"])
    (encoder,) = build_ppo(config).actor.trunk.encoders.values()
    assert (encoder.pixels.near_m, encoder.pixels.far_m) == (config.task.camera.near_m, 0.8)


def test_all_wrong_keys_are_named_at_once():
    with pytest.raises(
        ConfigError, match=r"(?s)training\.horizon.*ppo\.gamma|ppo\.gamma.*horizon"
    ):
        load_run_config(SMOKE, ["training.horizon=0", "ppo.gamma=2"])


@pytest.mark.parametrize("text", ["- a\n- b\n", "seed: [\n", "just words"])
def test_a_file_that_is_no_mapping_is_refused(write, text):
    path = write(text)
    with pytest.raises(ConfigError, match=str(path)):
        load_run_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file"):
        load_run_config(tmp_path / "none.yaml")


def test_the_longest_name_still_gives_a_run_id_of_48_characters():
    load_run_config(SMOKE, [f"name={'n' * 32}"])
    with pytest.raises(ConfigError, match="pattern"):
        load_run_config(SMOKE, [f"name={'n' * 33}"])


def test_the_groups_are_those_of_both_nets_and_the_target_without_repetition():
    config = load_run_config(
        SMOKE,
        ["network.actor_groups=[proprio, depth]", "network.critic_groups=[proprio, critic]"],
    )
    assert config.groups == ("proprio", "depth", "critic", "object")


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().training.horizon = 3  # type: ignore[misc]


@given(st.integers(1, 500), st.integers(1, 16))
def test_environments_are_accepted_exactly_when_every_worker_gets_one(envs, workers):
    values = {"num_envs": envs, "num_workers": workers}
    if envs < workers:
        with pytest.raises(ConfigError, match="at least one environment"):
            parse_config(SimulatorsConfig, values)
    else:
        shares = parse_config(SimulatorsConfig, values).shares
        assert sum(shares) == envs and max(shares) - min(shares) <= 1
