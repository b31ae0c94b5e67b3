"""Runs that begin with the nets of another run."""

from pathlib import Path

import pytest
import torch

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.run.assembly import build_distillation, build_ppo, fresh_actor
from dexgrasp_learner.run.initial_weights import (
    beginning,
    settings_with_names,
    take_initial_weights,
)
from dexgrasp_learner.run.runner import Runner
from dexgrasp_learner.run.thread import RunThread
from dexgrasp_learner.storage.checkpoint import load_actor
from dexgrasp_sim.config import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restore_torch")]

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
TINY = [  # without images, hence fast
    "task.episode_s=1.0",
    "simulators.num_envs=8",
    "simulators.transport=in_process",
    "network.actor_groups=[proprio, state]",
    "network.critic_groups=[critic]",
    "training.horizon=2",
]


def config_of(*overrides):
    return load_run_config(SMOKE, [*TINY, *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short run, and its algorithm at the end."""
    folder = tmp_path_factory.mktemp("runs") / "first_20260101_000000"
    (folder / "logs").mkdir(parents=True)
    config = config_of("training.iterations=2", "training.evaluate_every=null")
    algorithm = build_ppo(config)
    Runner(config, folder, algorithm, show_progress=False).run()
    return folder, algorithm


def begun(folder, *overrides):
    config = config_of(
        f"training.initial_policy={folder}", f"training.initial_critic={folder}", *overrides
    )
    algorithm = build_ppo(config)
    take_initial_weights(algorithm, config)
    return algorithm


def test_nets_and_statistics_are_the_other_runs_but_the_noise_is_new(trained):
    folder, former = trained
    algorithm = begun(folder, "seed=7", "network.initial_std=0.3")
    policy = load_actor(folder)[0].state_dict()
    own = algorithm.actor.state_dict()
    assert all(torch.equal(own[k], policy[k]) for k in policy if "distribution" not in k)
    assert torch.allclose(algorithm.actor.distribution.std, torch.tensor(0.3))
    critic, value = former.critic.state_dict(), former.value_normalizer.state_dict()
    assert all(torch.equal(algorithm.critic.state_dict()[k], critic[k]) for k in critic)
    assert all(torch.equal(algorithm.value_normalizer.state_dict()[k], value[k]) for k in value)
    assert not algorithm.actor.statistics_are_empty


def test_nothing_named_leaves_the_random_weights(trained):
    config = config_of()
    algorithm = build_ppo(config)
    take_initial_weights(algorithm, config)
    fresh = fresh_actor(config).state_dict()
    assert all(torch.equal(value, fresh[k]) for k, value in algorithm.actor.state_dict().items())
    assert beginning(config) == ""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.hidden=[24]"], "initial_policy .* layers have other sizes"),
        (["network.actor_groups=[proprio]"], "reads proprio, state, this run proprio"),
        (["task.control_hz=30"], "`task.action` or `task.control_hz` differs"),
        (["task.robot=franka_leap"], "it drives kuka_allegro, this run franka_leap"),
        (["network.critic_hidden=[24]"], "initial_critic .* layers have other sizes"),
        (["network.critic_groups=[proprio]"], "reads critic, this run proprio"),
        (["ppo.normalize_values=true"], "its ppo.normalize_values is False"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(trained, overrides, message):
    with pytest.raises(ConfigError, match=message) as error:
        begun(trained[0], *overrides)
    assert "\n" not in str(error.value)


def test_a_student_takes_a_policy_but_no_critic(trained):
    folder = trained[0]
    teacher = load_actor(folder)[0]
    config = config_of(f"training.initial_policy={folder}")
    take_initial_weights(build_distillation(config, teacher), config)
    config = config_of(f"training.initial_critic={folder}")
    with pytest.raises(ConfigError, match="a distillation has no critic"):
        take_initial_weights(build_distillation(config, teacher), config)


def test_where_there_is_no_run_the_path_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"missing.*no checkpoint there"):
        begun(tmp_path / "missing")


def test_the_run_of_a_node_begins_with_them_too(tmp_path):
    missing = tmp_path / "missing"
    thread = RunThread(config_of(f"training.initial_policy={missing}"), tmp_path)
    thread.run()
    assert isinstance(thread.error, ConfigError) and str(missing) in str(thread.error)


def test_a_bundle_names_the_run_without_its_path(trained):
    folder = trained[0]
    config = config_of(
        f"training.initial_policy={folder / 'checkpoints' / 'iteration_000002'}",
        f"training.initial_critic={folder}",
    )
    training = settings_with_names(config)["training"]
    assert training["initial_policy"] == training["initial_critic"] == folder.name
    assert beginning(config) == (
        f"The run began with the policy of {folder.name} and the critic of {folder.name}."
    )
