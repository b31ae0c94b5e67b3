"""Online distillation of a teacher that knows more into a student that sees less."""

import io
import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from dexgrasp_learner.algorithms.config import DistillationConfig
from dexgrasp_learner.algorithms.distillation import Distillation
from dexgrasp_learner.algorithms.guards import NonFiniteLoss
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import Actor, build_actor
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.specs import TensorSpec

torch.set_num_threads(1)

HORIZON, ENVS, ACTIONS = 8, 24, 2
SPECS = {
    "state": TensorSpec("state", (2,)),
    "cue": TensorSpec("cue", (2,)),
    "object": TensorSpec("object", (2,)),
    "phase": TensorSpec("phase", (3,)),
}


class CueTask:
    """The state is told to the student in the first of four steps only, to the teacher always."""

    length = 4

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        slots = (HORIZON + 1, ENVS)
        self.tensors = {name: spec.empty(*slots) for name, spec in SPECS.items()}
        self.tensors["reward"] = torch.zeros(slots)
        self.tensors["terminated"] = torch.zeros(slots, dtype=torch.bool)
        self.tensors["truncated"] = torch.zeros(slots, dtype=torch.bool)
        self.tensors["actions"] = torch.zeros(HORIZON, ENVS, ACTIONS)
        self.next_rollout()

    def next_rollout(self) -> None:
        for slot in range(HORIZON + 1):
            first = slot % self.length == 0
            fresh = torch.rand(ENVS, 2, generator=self.generator) * 2 - 1
            state = fresh if first else self.tensors["state"][slot - 1]
            self.tensors["state"][slot] = state
            self.tensors["object"][slot] = state * 0.3 + 0.5
            self.tensors["cue"][slot] = state if first else 0.0
            self.tensors["terminated"][slot] = first
            self.tensors["phase"][slot] = torch.tensor([0.0, 1.0, 0.0] if first else [0.0, 0, 1])


def make_teacher() -> Actor:
    """Mean action = 2 * (first, -second) of the state; beyond the action range at its edges."""
    teacher = build_actor(NetworkConfig(actor_groups=("state",), hidden=()), SPECS, ACTIONS)
    teacher.trunk.normalizer.count.fill_(1.0)
    with torch.no_grad():
        teacher.head.get_parameter("0.weight").copy_(torch.tensor([[2.0, 0.0], [0.0, -2.0]]))
    return teacher


def make_student(memory: Literal["none", "lstm"] = "lstm", seed: int = 0) -> Actor:
    config = NetworkConfig(
        actor_groups=("cue",),
        memory=memory,
        memory_size=24,
        hidden=(32,),
        auxiliary_group="object",
    )
    return build_actor(config, SPECS, ACTIONS, seed=seed, view=RunConfig().table_view)


def make(
    config: DistillationConfig, memory: Literal["none", "lstm"] = "lstm", seed: int = 0
) -> Distillation:
    return Distillation(make_student(memory, seed), make_teacher(), config, seed)


def make_rollout(distillation: Distillation, tensors: dict[str, Tensor]) -> Rollout:
    return Rollout.on(tensors, distillation.groups, distillation.memory_sizes)


def collect(distillation: Distillation, rollout: Rollout) -> None:
    for slot in range(HORIZON):
        distillation.act(rollout, slot)


def weights(distillation: Distillation) -> Tensor:
    return torch.cat([p.detach().flatten() for p in distillation.actor.parameters()])


def train(distillation: Distillation, iterations: int) -> list[dict[str, float]]:
    task = CueTask()
    rollout = make_rollout(distillation, task.tensors)
    history = []
    for _ in range(iterations):
        collect(distillation, rollout)
        history.append(distillation.update(rollout))
        task.next_rollout()
    return history


@pytest.mark.slow
def test_student_learns_what_the_teacher_does_and_where_the_object_is():
    history = train(make(DistillationConfig(learning_rate=5e-3, minibatches=4)), 60)
    assert history[0]["imitation"] > 0.3
    assert history[-1]["imitation"] < 0.04
    assert history[-1]["auxiliary"] < 0.2 * history[0]["auxiliary"]
    assert history[-1]["teacher_share"] == 0


def test_gradients_end_where_a_piece_ends():
    """Pieces of four steps end where the episodes end, so nothing is lost; those of three cut."""
    results = {}
    for bptt_steps in (None, CueTask.length, 3):
        distillation = make(DistillationConfig(bptt_steps=bptt_steps))
        train(distillation, 1)
        results[bptt_steps] = weights(distillation)
    torch.testing.assert_close(results[None], results[CueTask.length], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(results[None], results[3], atol=1e-5, rtol=1e-4)


def test_labels_are_the_clipped_actions_of_the_teacher():
    distillation = make(DistillationConfig())
    task = CueTask()
    rollout = make_rollout(distillation, task.tensors)
    collect(distillation, rollout)
    expected = (task.tensors["state"][:HORIZON] * torch.tensor([2.0, -2.0])).clamp(-1, 1)
    torch.testing.assert_close(rollout.own.mean, expected, atol=1e-3, rtol=1e-3)
    assert distillation.transitions == HORIZON * ENVS


def test_student_drives_with_noise_of_the_given_size():
    distillation = make(DistillationConfig(noise_std=0.2))
    rollout = make_rollout(distillation, CueTask().tensors)
    collect(distillation, rollout)
    # an untrained student's means are near zero
    assert rollout.actions.std().item() == pytest.approx(0.2, rel=0.15)


def test_without_noise_the_actions_are_the_students_means():
    distillation = make(DistillationConfig(noise_std=0.0))
    tensors = CueTask().tensors
    rollout = make_rollout(distillation, tensors)
    collect(distillation, rollout)
    observations = {"cue": tensors["cue"][:HORIZON]}
    memory = distillation.actor.initial_memory(ENVS)
    output = distillation.actor(observations, rollout.own.start[:HORIZON], memory)
    torch.testing.assert_close(rollout.actions, output.mean, atol=1e-6, rtol=1e-4)


def test_teacher_drives_less_and_less():
    steps = HORIZON * ENVS
    distillation = make(DistillationConfig(teacher_steps=2 * steps, noise_std=0.0))
    task = CueTask()
    rollout = make_rollout(distillation, task.tensors)
    shares, driven = [], []
    for _ in range(3):
        shares.append(distillation.teacher_share)
        collect(distillation, rollout)
        driven.append((rollout.actions == rollout.own.mean).all(-1).float().mean().item())
    assert shares == [1.0, 0.5, 0.0]
    assert driven[0] == pytest.approx(0.75, abs=0.1)
    assert driven[1] == pytest.approx(0.25, abs=0.1)
    assert driven[2] == 0


def test_the_loss_does_not_depend_on_the_teachers_deviation():
    """Weights of 1 / sigma^2 would make it ten thousand times as large."""
    results = []
    for std in (0.6, 0.006):
        distillation = make(DistillationConfig())
        distillation.teacher.distribution.log_std.data.fill_(math.log(std))
        results.append(train(distillation, 2))
    assert results[0] == results[1]


def test_errors_are_told_by_phase():
    """The first of four steps is called grasp, the others lift; none is called reach."""
    distillation = make(DistillationConfig(epochs=1, minibatches=1), memory="none")
    rollout = make_rollout(distillation, CueTask().tensors)
    collect(distillation, rollout)
    with torch.no_grad():
        output = distillation.actor(
            {"cue": rollout.observations["cue"][:HORIZON]},
            rollout.own.start[:HORIZON],
            distillation.actor.initial_memory(ENVS),
        )
    error = (output.mean - rollout.own.mean).square().mean((1, 2))  # [T]
    first = torch.arange(HORIZON) % CueTask.length == 0
    figures = distillation.update(rollout)
    assert figures["imitation_grasp"] == pytest.approx(error[first].mean().item(), rel=1e-4)
    assert figures["imitation_lift"] == pytest.approx(error[~first].mean().item(), rel=1e-4)
    assert figures["imitation"] == pytest.approx(error.mean().item(), rel=1e-4)
    assert not [name for name in figures if "reach" in name or name.startswith("share_")]


def test_gradients_reach_back_over_a_whole_rollout_by_default():
    """The cue of the first step moves the loss of the sixteenth."""
    assert RunConfig().training.horizon >= 16 and DistillationConfig().bptt_steps is None
    student = make_student()
    cue = torch.zeros(16, 1, 2, requires_grad=True)
    start = torch.zeros(16, 1, dtype=torch.bool)
    output = student({"cue": cue}, start, student.initial_memory(1))
    output.mean[-1].sum().backward()
    assert cue.grad is not None and (cue.grad[0] != 0).all()


@pytest.mark.parametrize("bptt_steps", [1, 3, 8, 20])
def test_pieces_do_not_change_the_loss(bptt_steps):
    whole = make(DistillationConfig(epochs=1, minibatches=1))
    pieces = make(DistillationConfig(epochs=1, minibatches=1, bptt_steps=bptt_steps))
    task = CueTask()
    results = []
    for distillation in (whole, pieces):
        rollout = make_rollout(distillation, task.tensors)
        collect(distillation, rollout)
        results.append(distillation.update(rollout))
    for name in ("imitation", "auxiliary"):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-4)


def test_pieces_without_memory_change_nothing():
    results = []
    for bptt_steps in (None, 3):
        distillation = make(DistillationConfig(bptt_steps=bptt_steps), memory="none")
        train(distillation, 2)
        results.append(weights(distillation))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_micro_batches_change_memory_use_only():
    results = []
    for micro_batches in (1, 3):
        config = DistillationConfig(minibatches=2, micro_batches=micro_batches, bptt_steps=4)
        distillation = make(config)
        train(distillation, 2)
        results.append(weights(distillation))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_teacher_stays_as_it_was():
    distillation = make(DistillationConfig())
    before = {name: t.clone() for name, t in distillation.teacher.state_dict().items()}
    train(distillation, 2)
    after = distillation.teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_saved_distillation_goes_on_exactly():
    config = DistillationConfig(teacher_steps=10 * HORIZON * ENVS)
    distillation = make(config)
    train(distillation, 2)
    file = io.BytesIO()
    torch.save(distillation.state_dict(), file)
    file.seek(0)
    resumed = make(config, seed=55)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert train(distillation, 2) == train(resumed, 2)
    assert torch.equal(weights(distillation), weights(resumed))


def test_not_finite_labels_stop_the_update():
    distillation = make(DistillationConfig())
    rollout = make_rollout(distillation, CueTask().tensors)
    collect(distillation, rollout)
    rollout.own.mean[2, 3] = math.nan
    before = weights(distillation)
    with pytest.raises(NonFiniteLoss, match="mean of step 2, environment 3 is"):
        distillation.update(rollout)
    assert torch.equal(before, weights(distillation))


def test_teacher_with_other_actions_is_refused():
    other = build_actor(NetworkConfig(actor_groups=("state",)), SPECS, ACTIONS + 1)
    with pytest.raises(ValueError, match="teacher has 3 actions, the student 2"):
        Distillation(make_student(), other, DistillationConfig())
