"""What one environment gets from the control code does not depend on the others, bit for bit.

First by construction: the operations that the control code runs are recorded, and each of them is
exact or is tried here on parts of a batch and on other layouts. Then as a whole, over any split.
"""

import operator
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.control.palm_velocity.decoder import ActionConfig
from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.linear_algebra import cross, solve, sum_products, sum_rows
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot, robot_names
from dexgrasp_sim.robot.rotation import (
    angle_of,
    matrix_to_quaternion,
    matrix_to_zyx_euler,
    rotation_vector,
    zyx_euler_to_matrix,
)
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
TABLE = GraspConfig().table_obstacle
KINEMATICS = Kinematics(ROBOT, [ROBOT.palm, *ROBOT.fingertips])
ROWS = 37
SPACES = [
    pytest.param(load_robot(name), config, id=f"{name}-{config.kind}")
    for name in robot_names()
    for config in (ActionConfig(), FabricConfig())
    if config.kind == "velocity" or load_robot(name).fabric
]
SPLITS = ([1, 36], [5, 32], [18, 19], [1] * 37, [2, 31, 4])

ELEMENTWISE = {
    "add": operator.add,
    "sub": operator.sub,
    "rsub": lambda a, b: 0.5 - a,
    "mul": operator.mul,
    "div": operator.truediv,
    "addcmul": lambda a, b: torch.addcmul(a, b, a - 0.7, value=-1.0).addcmul_(b, b),
    "reciprocal": lambda a, b: a.reciprocal(),
    "pow": lambda a, b: a.square(),
    "sqrt": lambda a, b: a.abs().sqrt(),
    "exp": lambda a, b: a.exp(),
    "tanh": lambda a, b: a.tanh(),
    "sin": lambda a, b: a.sin(),
    "cos": lambda a, b: a.cos(),
    "asin": lambda a, b: a.tanh().asin(),
    "atan": lambda a, b: a.atan(),
    "remainder": lambda a, b: torch.remainder(9.0 * a, 6.28),
}
"""Operations that round, of which every element must be what it is alone."""
SUMS = {"sum": 4}
"""The most numbers that torch adds in one order in any layout."""
EXACT = re.findall(
    r"\w+",
    """_local_scalar_dense _to_copy _unsafe_view abs all amax amin any arange bitwise_and
    bitwise_not bitwise_or cat ceil clamp clamp_min clone constant_pad_nd copy copysign detach
    diagonal expand flip gather ge gt index index_copy index_fill index_select isnan le lt
    masked_fill max maximum min minimum nan_to_num ne neg new_zeros nonzero ones ones_like permute
    relu scalar_tensor select slice split split_with_sizes squeeze stack transpose unbind unsqueeze
    view where zeros_like""",
)
"""Operations that only move, choose or compare numbers."""

pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layouts(values):
    """The same values [..., N] contiguous, batch first, off the alignment and with gaps."""
    yield values.clone()
    yield values.movedim(-1, 0).contiguous().movedim(0, -1)
    yield torch.cat((values[..., :1], values), -1)[..., 1:]
    yield torch.stack((values, values), -1)[..., 0]


def assert_same_in_any_batch(operation, *operands):
    """Of operands [..., 37]; the layouts of all of them alike."""
    whole = operation(*operands)
    for given_operands in zip(*map(layouts, operands), strict=True):
        assert torch.equal(operation(*given_operands), whole)
        for split in SPLITS:
            parts = zip(*(each.split(split, -1) for each in given_operands), strict=True)
            assert torch.equal(torch.cat([operation(*part) for part in parts], -1), whole)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(37,), (23, 37), (3, 5, 37)], ids=str)
def test_an_element_is_rounded_alike_wherever_it_stands(name, shape):
    operands = random(*shape, seed=1), random(*shape, seed=2)
    assert_same_in_any_batch(ELEMENTWISE[name], *operands)


@pytest.mark.parametrize("length", range(1, SUMS["sum"] + 1))
@pytest.mark.parametrize("dim", [0, 1])
def test_few_numbers_are_added_in_one_order(length, dim):
    values = random(length, 5, 37) if dim == 0 else random(5, length, 37)
    assert_same_in_any_batch(lambda a: a.sum(dim), values)
    first, *others = values.unbind(dim)
    for other in others:
        first = first + other
    assert torch.equal(values.sum(dim), first)


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def rotations(rows):
    return zyx_euler_to_matrix(rows[:, :3])


def positive_definite(rows):
    """[6, 6, N] of rows [N, 36]."""
    root = rows.mT.unflatten(0, (6, 6))
    return (
        sum_products(root[:, :, None].unbind(0), root[:, None].unbind(0)) + torch.eye(6)[..., None]
    )


def equations(rows):
    """[6, 7, N] of rows [N, 36], see `solve`."""
    return torch.cat((positive_definite(rows), rows.mT[:6, None]), 1)


# functions of rows [N, 36], whose result has the rows first
BATCH_FIRST = {
    "euler": lambda rows: matrix_to_zyx_euler(rotations(rows)),
    "quaternion": lambda rows: matrix_to_quaternion(rotations(rows)),
    "rotation vector": lambda rows: rotation_vector(rotations(rows)),
    "angle": lambda rows: angle_of(rows[:, 0], rows[:, 1]),
    "poses": lambda rows: KINEMATICS.forward(rows[:, :23]).position.flatten(1),
    "orientations": lambda rows: KINEMATICS.forward(rows[:, :23]).rotation.flatten(1),
    "jacobian": lambda rows: KINEMATICS.jacobian(rows[:, :23], ROBOT.palm).flatten(1),
}
BATCH_LAST = {
    **{
        f"sum of {k}": lambda rows, k=k: sum_rows(rows.mT[:k]) for k in (1, 2, 3, 5, 7, 23, 31, 36)
    },
    "sum of products": lambda rows: sum_products(rows.mT[:18], rows.mT[18:]),
    "cross product": lambda rows: cross(rows.mT[:3], rows.mT[3:6]),
    "solution": lambda rows: solve(equations(rows)).flatten(0, 1),
}
FUNCTIONS = {
    **BATCH_FIRST,
    **{name: lambda rows, f=f: f(rows).movedim(-1, 0) for name, f in BATCH_LAST.items()},
}


@pytest.mark.parametrize("parts", [[1, 36], [5, 32], [18, 19], [1] * ROWS], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_row_has_the_same_result_in_any_batch(name, parts):
    rows, function = numbers(ROWS, 36), FUNCTIONS[name]
    split = [function(part) for part in rows.split(parts)]
    assert torch.equal(function(rows), torch.cat(split))


def test_sums_and_solutions_agree_with_the_library():
    rows = numbers(ROWS, 36).double()
    matrix, right = equations(rows).split((6, 1), 1)
    expected = torch.linalg.solve(matrix.permute(2, 0, 1), right.permute(2, 0, 1))
    assert torch.allclose(solve(equations(rows)).permute(2, 0, 1), expected, atol=1e-9)
    assert torch.allclose(sum_rows(rows, 1), rows.sum(1), atol=1e-12)
    assert torch.allclose(angle_of(rows[0], rows[1]), torch.atan2(rows[0], rows[1]), atol=1e-12)


class Recorder(TorchDispatchMode):
    """Notes operations that this file vouches for and refuses all others."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        name = name if name.startswith("_") else name.rstrip("_")
        assert name in EXACT or name in ELEMENTWISE or name in SUMS, f"{name} is not tried here"
        if name in SUMS:
            values, dims = args[:2]
            assert len(dims) == 1 and values.shape[dims[0]] <= SUMS[name]
        self.seen.add(name)
        return func(*args, **(kwargs or {}))


class Control:
    """All that is promised, for a few environments."""

    def __init__(self, robot, config, count):
        self.decoder = make_decoder(config, robot, count, 1 / 60, TABLE)
        self.group = Proprioception(robot, config)
        self.kinematics = Kinematics(robot, robot.task_frames)
        self.palm = self.kinematics.chain(robot.palm)
        self.out = self.group.spec.empty(count)

    def step(self, actions):
        """What is there to see after a control step, [N, ...] each."""
        target = self.decoder.decode(actions)
        frames, palm = self.kinematics.forward(target), self.palm.forward(target)
        time = actions[:, 0]
        self.group.observe(target, 0.1 * target, self.decoder, actions, time, self.out)
        seen = frames.position, frames.rotation, palm.position, palm.rotation, palm.jacobian
        state = self.decoder.state_dict().values()
        return [each.clone() for each in (target, self.out, *seen, *state)]

    def starts(self, postures):
        """[N] bool."""
        return self.decoder.can_start(postures)


@pytest.mark.parametrize(("robot", "config"), SPACES)
def test_the_control_code_only_does_what_is_tried_here(robot, config):
    control = Control(robot, config, 37)
    actions = 2.0 * torch.rand(37, control.decoder.action_dim) - 1.0
    some = torch.arange(5)
    with Recorder() as recorder:
        for _ in range(30):
            control.step(actions)
        control.starts(control.decoder.target)
        control.decoder.reset(some, control.decoder.target[:5])
        control.decoder.reset()
    assert recorder.seen > {"addcmul", "sum", "sin", "atan" if config.kind == "fabric" else "ne"}


def actions_into_the_table(steps, count, dim, generator):
    """[steps, N, A], each held for four steps and at its limits in most dimensions."""
    actions = torch.randn(-(-steps // 4), count, dim, generator=generator).clamp(-1.0, 1.0)
    actions[:, :, 2] = -1.0  # down
    return actions.repeat_interleave(4, 0)[:steps]


sizes = st.lists(st.sampled_from([1, 2, 5, 18, 31, 37, 64, 100]), min_size=1, max_size=4)


@pytest.mark.parametrize(("robot", "config"), SPACES)
@given(parts=sizes, seed=st.integers(0, 2**31))
@settings(max_examples=8, deadline=None)
def test_a_split_changes_nothing(robot, config, parts, seed):
    count, generator = sum(parts), torch.Generator().manual_seed(seed)
    whole, pieces = Control(robot, config, count), [Control(robot, config, n) for n in parts]
    start = whole.decoder.start_position
    starts = start + 0.02 * torch.randn(count, len(start), generator=generator)
    starts = starts.clamp(*torch.tensor([robot.lower.tolist(), robot.upper.tolist()]))
    again = torch.rand(count, generator=generator) < 0.3
    whole.decoder.reset(None, starts)
    for piece, own in zip(pieces, starts.split(parts), strict=True):
        piece.decoder.reset(None, own)
    for step, action in enumerate(
        actions_into_the_table(24, count, whole.decoder.action_dim, generator)
    ):
        together = whole.step(action)
        split = [piece.step(own) for piece, own in zip(pieces, action.split(parts), strict=True)]
        for expected, *found in zip(together, *split, strict=True):
            assert torch.equal(expected, torch.cat(found))
        if step == 12:  # some episodes end
            whole.decoder.reset(again.nonzero().squeeze(1))
            for piece, ended in zip(pieces, again.split(parts), strict=True):
                piece.decoder.reset(ended.nonzero().squeeze(1))
    anywhere = starts + torch.randn(count, len(start), generator=generator)
    found = [piece.starts(own) for piece, own in zip(pieces, anywhere.split(parts), strict=True)]
    assert torch.equal(whole.starts(anywhere), torch.cat(found))
