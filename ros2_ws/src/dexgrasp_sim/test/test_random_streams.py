import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_sim.kernels import kernel
from dexgrasp_sim.random_streams import (
    Purpose,
    RandomStreams,
    _derived,
    _derived_uniforms,
    normal_numbers,
    uniforms,
    unit_numbers,
    words,
)
from dexgrasp_sim.vision.random_kernels import normal, uniform, word
from engine_lab import DEVICE

BITS = (1 << 64) - 1
INDICES = st.integers(0, 2**62)


def as_unsigned(tensor):
    return [number & BITS for number in tensor.flatten().tolist()]


def as_key(number):
    return torch.tensor([number - (1 << 64) if number >> 63 else number])


def reference_output(state):
    """SplitMix64's output function in whole numbers of any size, as in Vigna's splitmix64.c."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & BITS
    return state ^ (state >> 31)


def reference_word(key, counter):
    return reference_output((key + (counter + 1) * 0x9E3779B97F4A7C15) & BITS)


def reference_key(seed, *parts):
    key = seed
    for part in parts:
        key = reference_output(key ^ reference_output((part + 0x9E3779B97F4A7C15) & BITS))
    return key


@pytest.mark.parametrize(
    ("seed", "published"),
    [
        # rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
        (
            1234567,
            (
                6457827717110365317,
                3203168211198807973,
                9817491932198370423,
                4593380528125082431,
                16408922859458223821,
            ),
        ),
        # the test of Java's SplittableRandom and of Vigna's code, seed 0
        (0, (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)),
    ],
)
def test_words_are_the_published_ones(seed, published):
    assert as_unsigned(words(as_key(seed), torch.arange(len(published)))) == list(published)


@given(st.integers(0, BITS), st.sampled_from(Purpose), INDICES, INDICES, INDICES)
def test_keys_are_those_of_whole_numbers_without_limit(seed, purpose, env, episode, step):
    streams = RandomStreams(seed, torch.tensor([env]))
    wanted = reference_key(seed, purpose, env, episode, step)
    at = torch.tensor([episode])
    assert as_unsigned(streams.keys(purpose, at, torch.tensor([step]))) == [wanted]
    assert as_unsigned(streams.keys(purpose, at, step)) == [wanted]


@given(st.lists(st.integers(0, BITS), max_size=5), st.integers(0, 12))
def test_words_and_numbers_are_those_of_whole_numbers_without_limit(keys, count):
    tensor = torch.cat([as_key(key) for key in keys]) if keys else torch.zeros(0).long()
    wanted = [[reference_word(key, counter) for counter in range(count)] for key in keys]
    counters = torch.arange(count)
    assert as_unsigned(words(tensor, counters)) == list(itertools.chain(*wanted))
    numbers = [
        [(half & 0xFFFFFFFF) >> 8 for each in row for half in (each, each >> 32)] for row in wanted
    ]
    expected = np.array(numbers, np.float64).reshape(len(keys), 2 * count) / 2**24
    np.testing.assert_array_equal(uniforms(tensor, 2 * count).numpy(), expected)
    np.testing.assert_array_equal(
        uniforms(tensor, max(2 * count - 1, 0)).numpy(), expected[:, : max(2 * count - 1, 0)]
    )
    np.testing.assert_array_equal(
        unit_numbers(words(tensor, counters)).numpy(), expected[:, 1::2], "the upper halves"
    )


@kernel
def _kernel_numbers(keys, bits, units, normals):
    for row in range(len(keys)):
        for counter in range(bits.shape[1]):
            bits[row, counter] = word(keys[row], counter)
            units[row, counter] = uniform(keys[row], counter)
            normals[row, counter] = normal(bits[row, counter])


def test_kernels_make_the_same_numbers():
    keys = RandomStreams(2**63 + 5, torch.arange(50)).keys(Purpose.LOOK, torch.arange(50))
    bits, units, normals = np.empty((50, 99), np.uint64), np.empty((50, 99)), np.empty((50, 99))
    _kernel_numbers(keys.numpy().view(np.uint64), bits, units, normals)
    made = words(keys, torch.arange(99))
    np.testing.assert_array_equal(made.numpy().view(np.uint64), bits)
    np.testing.assert_array_equal(unit_numbers(made).numpy(), units)
    np.testing.assert_allclose(normal_numbers(made).numpy(), normals, rtol=1e-6, atol=1e-7)


@given(st.data())
def test_a_draw_depends_neither_on_the_split_nor_on_the_order_nor_on_the_others(data):
    count, seed = data.draw(st.integers(1, 12)), data.draw(st.integers(0, BITS))
    env = torch.arange(count) + data.draw(st.integers(0, 10**6))
    episode = torch.tensor(data.draw(st.lists(INDICES, min_size=count, max_size=count)))
    step = torch.tensor(data.draw(st.lists(INDICES, min_size=count, max_size=count)))
    whole = RandomStreams(seed, env).uniform(Purpose.NOISE_STEP, episode, step, 7)
    cut = data.draw(st.integers(0, count))
    parts = [
        RandomStreams(seed, env[rows]).uniform(Purpose.NOISE_STEP, episode[rows], step[rows], 7)
        for rows in (slice(cut), slice(cut, None))
    ]
    assert torch.equal(torch.cat(parts), whole)
    ids = torch.tensor(data.draw(st.permutations(range(count))))[: max(cut, 1)]
    some = RandomStreams(seed, env).uniform(Purpose.NOISE_STEP, episode[ids], step[ids], 5, ids)
    assert torch.equal(some, whole[ids, :5])


def test_many_rows_are_the_same_as_a_few():
    """So many that they are made in several parts."""
    streams = RandomStreams(1, torch.arange(3000))
    episode = torch.arange(3000) % 7
    drawn = streams.uniform(Purpose.START, episode, 0, 63)
    rows = torch.tensor([0, 1499, 2999])
    assert torch.equal(streams.uniform(Purpose.START, episode[rows], 0, 63, rows), drawn[rows])
    assert torch.equal(
        streams.symmetric(Purpose.START, episode, 0, 63), 2 * drawn.double().float() - 1
    )


def test_numbers_are_uniform_and_independent_of_their_neighbours():
    streams = RandomStreams(0, torch.arange(400))
    grid = torch.stack(
        [
            torch.stack(
                [
                    streams.uniform(purpose, torch.full((400,), episode), step, 20)
                    for step in range(4)
                ]
            )
            for purpose in (Purpose.PHYSICS, Purpose.SPAWN)
            for episode in range(4)
        ]
    ).view(2, 4, 4, 400, 20)  # purpose, episode, step, environment, column
    assert grid.min() >= 0 and grid.max() < 1
    # 256000 numbers of 2^24 values: expected are 256000^2 / 2 / 2^24 = 1950 pairs of equal ones
    assert 1700 < grid.numel() - len(torch.unique(grid)) < 2200
    grid = grid.double() - 0.5
    deviation = 1 / np.sqrt(12 * grid.numel())
    assert abs(grid.mean()) < 4 * deviation
    assert float(grid.square().mean()) == pytest.approx(1 / 12, rel=0.01)
    for axis in range(5):
        one, next_one = (
            grid.narrow(axis, start, grid.shape[axis] - 1).flatten() for start in (0, 1)
        )
        correlation = 12 * float((one * next_one).mean())
        assert abs(correlation) < 4 / np.sqrt(len(one)), f"along axis {axis}"
    seeds = [
        RandomStreams(seed, torch.arange(400)).uniform(
            Purpose.PHYSICS, torch.zeros(400).long(), 0, 20
        )
        for seed in (0, 1)
    ]
    product = 12 * float(((seeds[0].double() - 0.5) * (seeds[1].double() - 0.5)).mean())
    assert abs(product) < 4 / np.sqrt(8000)


def test_normal_numbers_have_mean_0_and_deviation_1():
    keys = RandomStreams(4, torch.arange(100)).keys(Purpose.DEPTH_STEP, torch.zeros(100).long())
    numbers = normal_numbers(words(keys, torch.arange(1000))).double()
    assert abs(float(numbers.mean())) < 4 / np.sqrt(numbers.numel())
    assert float(numbers.std()) == pytest.approx(1, abs=0.01)
    assert float(numbers.abs().max()) <= np.sqrt(12)


@pytest.mark.slow  # compiles kernels
@pytest.mark.parametrize("step", [0, 7, "each"])
def test_kernels_of_warp_make_the_numbers_of_tensors(step):
    warp_streams = pytest.importorskip("dexgrasp_sim.random_streams_warp")
    generator = torch.Generator().manual_seed(0)
    keys, episode, steps = torch.randint(-(2**62), 2**62, (3, 50), generator=generator)
    step = steps if step == "each" else step
    on = {"device": DEVICE}
    given = keys.to(**on), episode.to(**on), step.to(**on) if torch.is_tensor(step) else step
    (derived,) = _derived(keys, episode, step)
    assert torch.equal(warp_streams.derived_keys(*given).cpu(), derived)
    for count in (0, 1, 2, 5):
        (numbers,) = _derived_uniforms(keys, episode, step, count)
        assert torch.equal(warp_streams.derived_uniforms(*given, count).cpu(), numbers)


@given(st.integers(1, 2**24))
def test_a_number_times_a_whole_one_stays_below_it(whole):
    largest = torch.tensor(1 - 2.0**-24)
    assert float(torch.floor(largest * whole)) <= whole - 1


def test_each_purpose_has_numbers_of_its_own():
    streams, episode = RandomStreams(0, torch.arange(2)), torch.tensor([3, 3])
    keys = torch.cat([streams.keys(purpose, episode) for purpose in Purpose])
    assert len(torch.unique(keys)) == 2 * len(Purpose)


def test_the_streams_are_settings_and_not_state():
    assert not RandomStreams(0, torch.arange(2)).state_dict()


def test_nothing_is_read_from_the_device(no_host_reads):
    streams = RandomStreams(0, torch.arange(5)).to("meta")
    episode = torch.zeros(3, dtype=torch.int64, device="meta")
    with no_host_reads:
        drawn = streams.symmetric(Purpose.SPAWN, episode, episode, 7, ids=episode)
        assert drawn.shape == (3, 7) and drawn.device.type == "meta"


@pytest.mark.slow
def test_settings_need_no_compiler():
    """A robot reads them from a bundle."""
    code = (
        "import sys, dexgrasp_sim.vision.image_config\n"
        "assert not {'numba', 'scipy', 'torch'} & set(sys.modules)\n"
        "import dexgrasp_sim.tasks.grasp.config\n"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
