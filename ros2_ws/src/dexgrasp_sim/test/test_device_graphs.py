"""What a GPU replays gives the same as what the CPU calls, whatever has changed in between."""

from pathlib import Path

import pytest
import torch

from dexgrasp_sim import device_graphs, linear_algebra
from dexgrasp_sim.config import parse_config, read_values
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.control.fabric import braking_guard, chains
from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.control.palm_velocity import differential_ik
from dexgrasp_sim.control.palm_velocity.decoder import ActionConfig
from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.device_graphs import Captured, Fused
from dexgrasp_sim.physics.still_engine import StillEngine
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp import starts
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.vec_env import allocate
from test_support.tape import nothing_recorded, record_tapes

CHECKOUT = Path(__file__).parents[4]
ROBOT = load_robot()
LIMITS = torch.tensor([ROBOT.lower.tolist(), ROBOT.upper.tolist()])
TABLE = GraspConfig().table_obstacle

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def taped(monkeypatch):
    """The CPU as if it were a GPU; the tapes by number."""
    tapes = record_tapes(monkeypatch)
    for module in (braking_guard, differential_ik):
        monkeypatch.setattr(module, "known_empty", lambda mask: False)
    for module in (braking_guard, starts):
        monkeypatch.setattr(module, "rows_to_compute", lambda mask: torch.arange(len(mask)))
    return tapes


def test_a_function_is_called_once_and_then_replayed_with_new_values(taped):
    calls = []

    def double(values):
        calls.append(len(values))
        return (2.0 * values,)

    captured = Captured(double)
    first, second, third = (captured(torch.full((3, 2), value))[0] for value in (1.0, 2.0, 3.0))
    assert (len(calls), len(taped)) == (3, 1)  # a recording begins with a call
    for result, value in ((first, 2.0), (second, 4.0), (third, 6.0)):
        assert torch.equal(result, torch.full((3, 2), value))


def test_any_number_of_rows_is_served_by_the_next_size(taped):
    captured = Captured(lambda values: (values.square(), values.sum(1)), any_rows=True)
    for rows in (0, 5, 64, 1, 65, 256, 100, 63):
        values = torch.randn(rows, 3)
        squares, sums = captured(values)
        assert torch.equal(squares, values.square()) and torch.equal(sums, values.sum(1))
    assert [tape.outputs[0].shape[0] for tape in taped] == [64, 256]


def test_what_cannot_be_recorded_is_called_and_one_line_says_why(monkeypatch, capsys):
    def record(function, inputs):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setitem(device_graphs.RECORDERS, "cpu", record)
    captured = Captured(torch.Tensor.unbind)
    for value in (1.0, 2.0, 3.0):
        assert captured(torch.tensor([[value]]))[0].item() == value
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].endswith("slower: operation not permitted")


def test_the_cpu_calls_the_function():
    calls = []
    captured = Captured(lambda values: (calls.append(0), values)[1:])
    for _ in range(3):
        captured(torch.zeros(2))
    assert len(calls) == 3


RAMP = {"initial": 10.0, "final": 20.0}
CONFIGS = {
    "fabric": parse_config(FabricConfig, {"damping_per_s": RAMP, "time_scale": 2.0}),
    "velocity": ActionConfig(),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_replayed_decoder_does_what_the_called_one_does(taped, name):
    """Through resets, other dampings, restored states and actions that the guard refuses."""
    count, config = 6, CONFIGS[name]
    called, replayed = (make_decoder(config, ROBOT, count, 1 / 60, TABLE) for _ in range(2))
    generator = torch.Generator().manual_seed(0)

    def compare(act):
        """Of an action on both, the one called and the other replayed."""
        with nothing_recorded():
            expected = act(called)
        assert torch.equal(act(replayed), expected)
        for key, value in called.state_dict().items():
            assert torch.equal(replayed.state_dict()[key], value), key

    start, saved = called.start_position, []
    for step in range(24):
        if step % 8 == 3:
            difficulty = step / 24
            ids = torch.tensor([1, step % count])
            offset = 0.02 * torch.randn(2, len(start), generator=generator)
            places = (start + offset).clamp(
                *torch.tensor([ROBOT.lower.tolist(), ROBOT.upper.tolist()])
            )
            for decoder in (called, replayed):
                decoder.set_difficulty(difficulty)
            compare(lambda d, p=places: d.can_start(p))
            compare(lambda d, i=ids, p=places: (d.reset(i, p, checked=True), d.target)[1])
        if step == 10:
            saved.append(called.state_dict())
        if step == 20:
            compare(lambda d: (d.load_state_dict(saved[0]), d.target)[1])
        actions = torch.randn(count, called.action_dim, generator=generator)
        actions[:, 2] = -1.0  # into the table
        compare(lambda d, a=actions: d.decode(a))
        compare(lambda d: d.intent())
    assert len(taped) >= (3 if name == "fabric" else 1)


def test_a_decoder_of_the_inference_mode_is_replayed_outside_of_it_and_back(taped):
    with torch.inference_mode():
        decoder = make_decoder(CONFIGS["fabric"], ROBOT, 2, 1 / 60, TABLE)
        for _ in range(2):
            decoder.decode(torch.zeros(2, 11))
    expected = decoder.decode(torch.ones(2, 11)).clone()
    with torch.inference_mode():
        later = decoder.decode(torch.ones(2, 11))
    assert len(taped) == 1 and not torch.equal(later, expected)


def test_replayed_draws_are_those_of_the_streams(taped):
    streams = RandomStreams(5, torch.arange(40))
    group = Proprioception(ROBOT, ActionConfig())

    def draws(turn):
        ids = torch.arange(turn, 40, 3)
        episode, step = torch.arange(40) + turn, torch.full((40,), 7 * turn)
        return [
            streams.uniform(Purpose.START, episode[ids], 0, 5, ids),
            streams.uniform(Purpose.SPAWN, episode[ids], 0, 5, ids),
            streams.symmetric(Purpose.NOISE_STEP, episode, step, 3),
            streams.keys(Purpose.DEPTH_STEP, episode, step),
            streams.keys(Purpose.LOOK, episode[ids], 1, ids),
            group.hand_points(0.01 * torch.arange(23.0) + 0.1 * episode[:, None]),
        ]

    for turn in range(4):
        found = draws(turn)
        with nothing_recorded():
            expected = draws(turn)
        for own, other in zip(found, expected, strict=True):
            assert torch.equal(own, other)
    assert len(taped) == 5


def test_a_recording_with_other_constants_is_made_anew_and_holds_no_replay(taped):
    inner = Captured(lambda values: (values + 1.0,))
    outer = Captured(lambda values, *, factor: (factor * inner(values)[0],))
    for factor in (2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 2.0):
        values = torch.rand(4, 1)
        assert torch.equal(outer(values, factor=factor)[0], factor * (values + 1.0))
        inner(values)
    assert len(taped) == 3, "the inner one's, and of the outer one's for each factor"


@pytest.mark.parametrize("path", ["paper.yaml", "laptop_state.yaml"])
def test_replayed_environments_do_what_called_ones_do(taped, path):
    """Through ends of episodes, resets, another difficulty and a restored state."""
    values = read_values(CHECKOUT / "config" / path)["task"]
    if "objects" in values:
        values = {**values, "objects": "primitives"}  # others take seconds to make
    task = parse_config(GraspConfig, {**values, "difficulty": 1.0, "stagger_starts": False})
    groups, count = ("proprio", "state", "critic", "object"), 6
    called, replayed = (GraspEnv(task, StillEngine(task.scene(count)), 0, groups) for _ in "ab")
    outs = allocate(called), allocate(replayed)
    generator = torch.Generator().manual_seed(0)

    def both(act):
        with nothing_recorded():
            act(called, outs[0])
        act(replayed, outs[1])
        for name, value in outs[0].items():
            assert torch.equal(outs[1][name], value), name
        for name, value in called.state_dict().items():
            assert torch.equal(replayed.state_dict()[name], value), name

    both(lambda env, out: env.reset(out))
    saved = {}
    for step in range(12):
        if step in (3, 4, 5, 9):
            ending = torch.rand(count, generator=generator) < 0.5
            last = torch.where(ending, task.episode_steps - 1, called.step_count)
            both(lambda env, out, last=last: env.step_count.copy_(last))
        if step == 6:
            both(lambda env, out: env.set_difficulty(0.3))
            saved = called.state_dict()
        if step == 10:
            both(lambda env, out, state=saved: env.load_state_dict(state, out))
        actions = 2.0 * torch.rand(count, called.action_dim, generator=generator) - 1.0
        both(lambda env, out, actions=actions: env.step(actions, out))
        if step % 4 == 2:
            both(lambda env, out: env.reset_envs(torch.tensor([1, 4]), out))
    assert len(taped) >= 5


class Again:
    """Calls a function anew in each replay; unlike a tape it lets torch compile."""

    def __init__(self, function, inputs):
        self._function, self._inputs, self.outputs = function, inputs, function(*inputs)

    def replay(self):
        for output, value in zip(self.outputs, self._function(*self._inputs), strict=True):
            output.copy_(value)


@pytest.fixture
def fusing(taped, monkeypatch):
    """Functions are traced as for a GPU, and then run as they are."""
    monkeypatch.setitem(device_graphs.RECORDERS, "cpu", Again)
    made = []

    def fuse(function):
        made.append(torch.compile(function, backend="eager", fullgraph=True, dynamic=False))
        return made[-1]

    monkeypatch.setitem(device_graphs.FUSERS, "cpu", fuse)
    return made


def test_a_part_is_compiled_when_it_is_recorded(fusing):
    part = Fused(lambda values, pair: values + pair[0] * pair[1])
    captured = Captured(lambda values: (part(values, (values, values)),))
    for number in (1.0, 2.0, 3.0):
        assert captured(torch.full((2,), number))[0].tolist() == [number + number**2] * 2
        assert len(fusing) == (number > 1.0)


@pytest.mark.parametrize("reason", ["its results differ", "no compiler"])
def test_what_is_compiled_wrongly_or_not_at_all_is_called(fusing, monkeypatch, capsys, reason):
    def fuse(function):
        def wrong(values):
            if reason == "no compiler":
                raise RuntimeError("no compiler\nat all")
            return function(values) + 1.0

        return wrong

    monkeypatch.setitem(device_graphs.FUSERS, "cpu", fuse)
    part = Fused(torch.square)
    captured = Captured(lambda values: (part(values),))
    for number in (1.0, 2.0, 3.0):
        assert captured(torch.full((2,), number))[0].tolist() == [number**2] * 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "square is not compiled, which is slower" in line and line.endswith(reason)


@pytest.mark.parametrize("ordered", [True, False], ids=["sums of a CPU", "sums of a GPU"])
def test_the_parts_of_a_fabric_can_be_compiled(fusing, monkeypatch, capsys, ordered):
    """Nothing in them needs Python while they run, and they give what the called ones give."""
    for module in (linear_algebra, chains):
        monkeypatch.setattr(module, "keeps_order", lambda values: ordered)
    replayed, called = (make_decoder(CONFIGS["fabric"], ROBOT, 5, 1 / 60, TABLE) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        actions = torch.randn(5, called.action_dim, generator=generator)
        with nothing_recorded():
            expected = called.decode(actions)
        assert torch.allclose(replayed.decode(actions), expected, atol=1e-6)
    assert (len(fusing), capsys.readouterr().err) == (3, "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_graph_of_a_gpu_does_what_the_called_decoder_does(capsys, name):
    """One decoder without graphs, one with, through a reset and another damping."""
    count = 6
    called, replayed = (
        make_decoder(CONFIGS[name], ROBOT, count, 1 / 60, TABLE, "cuda") for _ in range(2)
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(12):
        actions = torch.randn(count, called.action_dim, generator=generator).cuda()
        with nothing_recorded():
            expected = called.decode(actions)
        assert torch.allclose(replayed.decode(actions), expected, atol=1e-6)
        if step == 5:
            for decoder in (called, replayed):
                decoder.set_difficulty(1.0)
                decoder.reset(torch.tensor([1, 4], device="cuda"))
    assert "without a CUDA graph" not in capsys.readouterr().err
    assert (called.target - called.start_position).abs().max() > 0.01
