"""Search for the largest number of environments that fits."""

from collections.abc import Callable

_STEP, _TOLERANCE = 0.08, 0.04
"""Fractions of a count: the first step away from the guess, and the final accuracy."""


def largest_that_fits(guess: int, fits: Callable[[int], bool]) -> int:
    """The largest n that fits, within 4 %, searched from a guess; 0 if not even 1 fits."""
    step = max(1, round(_STEP * guess))
    if fits(max(guess, 1)):
        lower, upper = guess, guess + step
        while fits(upper):
            step *= 2
            lower, upper = upper, upper + step
    else:
        lower, upper = guess - step, guess
        while lower > 0 and not fits(lower):
            step *= 2
            lower, upper = lower - step, lower
        lower = max(lower, 0)
    while upper - lower > max(1, round(_TOLERANCE * lower)):
        middle = (lower + upper) // 2
        if fits(middle):
            lower = middle
        else:
            upper = middle
    return lower
