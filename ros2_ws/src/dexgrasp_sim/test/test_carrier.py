"""What a learner reads is the same whichever way the tensors come to it."""

import json

import pytest
import torch

from dexgrasp_sim.environments import env_specs, make_env
from dexgrasp_sim.transport import carrier
from dexgrasp_sim.transport.layout import RunLayout, split_envs
from dexgrasp_sim.transport.telemetry import WorkerTelemetry
from dexgrasp_sim.worker.env_slice import EnvSlice

CONFIG = {
    "observations": {"depth": {"shape": [6, 8], "dtype": "int16"}, "state": {"shape": [5]}},
    "action_dim": 2,
    "episode_length": 2,
}
GROUPS = ("depth", "state")
SPECS = env_specs("synthetic", CONFIG, GROUPS)
LAYOUT = RunLayout(SPECS, 4, split_envs(5, 2))
STAGED = {"carrier": "staged", "device": "cpu"}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="copies to and from a GPU")


def run_slice(orders, tmp_path, device="cpu"):
    """The tensors after a rollout, a save, a step, and a continuation from the save."""
    tensors = {b.name: torch.zeros(b.shape, dtype=b.torch_dtype) for b in LAYOUT.blocks}
    start, stop = LAYOUT.slices[1]
    env = make_env("synthetic", CONFIG, stop - start, 3, 1, GROUPS, start, device)
    envs = EnvSlice(
        env,
        LAYOUT,
        tensors,
        WorkerTelemetry(tensors, 1),
        1,
        carrier=lambda slots: carrier.make_carrier(slots, orders),
    )
    envs.reset()
    snapshots = [{name: tensor.clone() for name, tensor in tensors.items()}]
    for slot in range(3):
        tensors["actions"][slot] = 0.1 * (slot + 1)
        envs.step(slot, policy_version=0)
        envs.report()
    envs.save(tmp_path / "state")
    snapshots.append({name: tensor.clone() for name, tensor in tensors.items()})
    envs.load(tmp_path / "state")
    envs.take_over(slot=2, steps=9)
    return [*snapshots, tensors]


def same(found, expected):
    timed = ("telemetry", "view")
    for before, after in zip(found, expected, strict=True):
        for name in before:
            if not name.startswith(timed):
                assert torch.equal(before[name], after[name]), name


def test_staged_slots_are_those_that_are_written_in_place(tmp_path):
    expected = run_slice({}, tmp_path)
    assert expected[1]["state"][1:4].count_nonzero() > 0
    same(run_slice(STAGED, tmp_path), expected)


def test_a_slot_stands_still_while_the_next_one_is_written(tmp_path):
    """All slots share one stage; only `publish` may change the learner's tensors."""
    slots = [{"state": torch.zeros(2, 3)} for _ in range(3)]
    staged = carrier.Staged(slots, "cpu")
    staged.out[1]["state"].fill_(1.0)
    assert slots[1]["state"].count_nonzero() == 0
    staged.publish(1)
    staged.out[2]["state"].fill_(2.0)
    staged.publish(2)
    assert [slot["state"].max().item() for slot in slots] == [0.0, 1.0, 2.0]


def test_in_place_has_nothing_to_copy():
    slots = [{"state": torch.zeros(2, 3)}]
    in_place = carrier.make_carrier(slots, {})
    actions = torch.ones(2, 4)
    assert in_place.out[0]["state"] is slots[0]["state"]
    assert in_place.fetch(actions) is actions
    in_place.publish(0)


def test_handles_survive_json():
    values = ["float32", 3, True, None, b"\x00\xffhandle", [2, 3]]
    text = json.dumps([carrier._to_json(value) for value in values])
    assert [carrier._from_json(value) for value in json.loads(text)] == values


@needs_gpu
def test_slots_come_from_a_gpu_through_pinned_memory(tmp_path):
    orders = {"carrier": "pinned", "device": "cuda"}
    same(run_slice(orders, tmp_path, "cuda"), run_slice({}, tmp_path))
