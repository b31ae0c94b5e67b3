"""Exposures are paired by their time, whatever the order in which they arrive."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_deploy.drivers.camera_config import PairingConfig
from dexgrasp_deploy.drivers.exposure_clock import ExposureClock
from dexgrasp_deploy.drivers.pairing import Exposure, StereoPairer

SKEW_S = 0.005
PERIOD_S = 1 / 30
SIDES = st.sampled_from(["left", "right"])


def pairer(waiting=4):
    return StereoPairer(PairingConfig(max_skew_s=SKEW_S, waiting=waiting))


def shot(stamp_s, image=None, arrival_s=0.0):
    return Exposure(image, stamp_s, arrival_s)


@given(st.lists(st.tuples(SIDES, st.floats(0, 1)), max_size=60))
def test_pairs_are_within_the_limit_in_order_and_of_exposures_used_once(pushes):
    pairs, joined = [], pairer()
    for number, (side, stamp_s) in enumerate(pushes):
        pair = joined.push(side, shot(stamp_s, (side, number)))
        if pair is not None:
            pairs.append(pair)
    for pair in pairs:
        assert abs(pair.left.stamp_s - pair.right.stamp_s) <= SKEW_S
        assert (pair.left.image[0], pair.right.image[0]) == ("left", "right")
        assert pair.stamp_s == min(pair.left.stamp_s, pair.right.stamp_s)
    for before, after in pairwise(pairs):
        assert after.left.stamp_s > before.left.stamp_s
        assert after.right.stamp_s > before.right.stamp_s
    assert joined.pairs == len(pairs)


@given(
    st.lists(st.booleans(), min_size=2, max_size=40),
    st.lists(st.floats(-0.9 * SKEW_S, 0.9 * SKEW_S), min_size=40, max_size=40),
    st.lists(st.booleans(), min_size=80, max_size=80),
)
def test_every_moment_that_both_sides_saw_is_paired(right_came, jitter_s, left_first):
    """The sides arrive each in order, one up to four exposures ahead of the other."""
    left = [("left", shot(k * PERIOD_S, k)) for k in range(len(right_came))]
    right = [
        ("right", shot(k * PERIOD_S + jitter_s[k], k)) for k, came in enumerate(right_came) if came
    ]
    joined, found = pairer(waiting=4), []
    turns = iter(left_first)
    while left or right:
        ahead = (right[0][1].image if right else 99) - (left[0][1].image if left else 99)
        take_left = left and (not right or ahead > 3 or (ahead > -3 and next(turns, True)))
        side, exposure = (left if take_left else right).pop(0)
        pair = joined.push(side, exposure)
        if pair is not None:
            assert pair.left.image == pair.right.image
            found.append(pair.left.image)
    assert found == [k for k, came in enumerate(right_came) if came]


def test_a_repeated_or_older_exposure_is_dropped():
    joined = pairer()
    assert joined.push("right", shot(1.0)) is None
    assert joined.push("right", shot(1.0)) is None
    assert joined.push("right", shot(0.9)) is None
    assert joined.dropped == 2
    assert joined.push("left", shot(0.9)) is None
    assert joined.push("left", shot(1.001)) is not None


def test_complaints_name_the_side_or_the_skew():
    joined = pairer()
    assert joined.complaint(10.0, 1.0) == "no left exposure has come"
    joined.push("left", shot(1.0, arrival_s=9.5))
    assert joined.complaint(10.0, 1.0) == "no right exposure has come"
    joined.push("right", shot(1.02, arrival_s=9.6))
    assert "at least 0.020 s apart, allowed 0.005 s" in joined.complaint(10.0, 1.0)
    assert joined.complaint(10.55, 1.0) == "the left exposures ended 1.05 s ago"
    joined.push("left", shot(1.021, arrival_s=10.5))
    assert joined.complaint(10.55, 1.0) == ""


@given(
    st.floats(-1e9, 1e9),
    st.lists(st.floats(0.001, 0.2), min_size=1, max_size=50),
    st.floats(-5e-5, 5e-5),
)
def test_stamps_of_a_device_keep_the_differences_of_its_clock(zero_s, delays_s, drift):
    now_s = [0.0]
    clock = ExposureClock(lambda: now_s[0])
    fastest_s = min(delays_s)
    for number, delay_s in enumerate(delays_s):
        exposed_s = number * PERIOD_S
        now_s[0] = max(now_s[0], exposed_s + delay_s)
        found_s = clock.of_device(zero_s + exposed_s * (1 + drift))
        assert found_s <= now_s[0] + 1e-6
        seen_s = min(delays_s[: number + 1])
        # it takes the fastest frame so far for one that took no time
        assert found_s - exposed_s >= fastest_s - 1e-3
        if number == 0:
            assert found_s - exposed_s <= seen_s + 1e-3


def test_a_leap_of_a_device_clock_lies_in_the_future():
    clock = ExposureClock(lambda: 100.0)
    assert clock.of_device(7.0) == 100.0
    assert clock.of_device(7.0 + 1e9) == 100.0 + 1e9
    assert clock.of_device(7.0) == 100.0


def test_a_stamp_of_the_wall_clock_is_as_old_as_the_wall_clock_says():
    clock = ExposureClock(lambda: 100.0, lambda: 1.7e9)
    assert clock.of_wall_clock(1.7e9 - 0.25) == 99.75
