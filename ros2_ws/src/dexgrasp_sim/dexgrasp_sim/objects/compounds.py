"""Everyday objects as unions of primitives of random sizes; all can stand on the table."""

import math

import numpy as np

from dexgrasp_sim.objects.config import PartConfig, Primitive, Vector3

Parts = tuple[PartConfig, ...]

_QUARTER = math.pi / 2


def mug(random: np.random.Generator) -> Parts:
    """A full cup with a handle of three bars."""
    diameter, height, bar = _draw(random, (0.060, 0.085), (0.075, 0.110), (0.010, 0.014))
    reach, grip = _draw(random, (0.025, 0.035), (0.045, 0.060))
    middle = diameter / 2 + reach / 2 - 0.004
    outer = diameter / 2 + reach - 0.004 - bar / 2
    return (
        _part("cylinder", (diameter, height), (0, 0, 0)),
        _part("box", (reach, bar, bar), (middle, 0, grip / 2)),
        _part("box", (reach, bar, bar), (middle, 0, -grip / 2)),
        _part("box", (bar, bar, grip - bar), (outer, 0, 0)),
    )


def bottle(random: np.random.Generator) -> Parts:
    """Body, shoulder and neck."""
    diameter, body, neck = _draw(random, (0.055, 0.080), (0.070, 0.090), (0.022, 0.030))
    shoulder, length = _draw(random, (0.015, 0.022), (0.020, 0.030))
    return (
        _part("cylinder", (diameter, body), (0, 0, body / 2)),
        _part("ellipsoid", (0.96 * diameter, 0.96 * diameter, 2 * shoulder), (0, 0, body)),
        _part("cylinder", (neck, shoulder + length), (0, 0, body + (shoulder + length) / 2)),
    )


def mallet(random: np.random.Generator) -> Parts:
    """A hammer that stands on its head."""
    width, depth, head = _draw(random, (0.080, 0.120), (0.045, 0.065), (0.040, 0.060))
    diameter, handle = _draw(random, (0.022, 0.032), (0.060, 0.080))
    return (
        _part("box", (width, depth, head), (0, 0, head / 2)),
        _part("cylinder", (diameter, handle), (0, 0, head + handle / 2)),
    )


def dumbbell(random: np.random.Generator) -> Parts:
    """Two blocks with a bar between them, lying."""
    edge, thick, bar, length = _draw(
        random, (0.050, 0.075), (0.025, 0.040), (0.024, 0.034), (0.045, 0.070)
    )
    offset = (length + thick) / 2
    return (
        _part("cylinder", (bar, length), (0, 0, 0), (0, _QUARTER, 0)),
        _part("box", (thick, edge, edge), (offset, 0, 0)),
        _part("box", (thick, edge, edge), (-offset, 0, 0)),
    )


def bowl(random: np.random.Generator) -> Parts:
    """A base and six walls that lean outwards."""
    radius, height, wall, lean = _draw(
        random, (0.028, 0.036), (0.040, 0.060), (0.008, 0.011), (0.25, 0.5)
    )
    walls = 6
    side = 2 * (radius + height * math.sin(lean)) * math.tan(math.pi / walls)
    parts = [_part("cylinder", (2 * radius + wall, wall), (0, 0, wall / 2))]
    for index in range(walls):
        yaw = 2 * math.pi * index / walls
        out = radius + height / 2 * math.sin(lean)
        position = (out * math.cos(yaw), out * math.sin(yaw), wall + height / 2 * math.cos(lean))
        parts.append(_part("box", (wall, side, height), position, (0, lean, yaw)))
    return tuple(parts)


def cross(random: np.random.Generator) -> Parts:
    """Two bars crossed, with a post upon them."""
    long, short, bar, post = _draw(
        random, (0.100, 0.140), (0.080, 0.110), (0.030, 0.042), (0.030, 0.055)
    )
    return (
        _part("box", (long, bar, bar), (0, 0, bar / 2)),
        _part("box", (bar, short, bar), (0, 0, bar / 2)),
        _part("cylinder", (0.9 * bar, post), (0, 0, bar + post / 2)),
    )


def steps(random: np.random.Generator) -> Parts:
    """Three blocks, each narrower than the one below."""
    width, depth, height = _draw(random, (0.080, 0.110), (0.065, 0.090), (0.025, 0.038))
    shrink = random.uniform(0.6, 0.8)
    return tuple(
        _part(
            "box",
            (width * shrink**level, depth * shrink**level, height),
            (0, 0, height * (level + 0.5)),
        )
        for level in range(3)
    )


def lamp(random: np.random.Generator) -> Parts:
    """A foot, a stem and a ball upon it."""
    foot, stem, ball, length = _draw(
        random, (0.070, 0.090), (0.022, 0.030), (0.045, 0.060), (0.030, 0.050)
    )
    thick = 0.02
    return (
        _part("cylinder", (foot, thick), (0, 0, thick / 2)),
        _part("cylinder", (stem, length), (0, 0, thick + length / 2)),
        _part("sphere", (ball,), (0, 0, thick + length + 0.4 * ball)),
    )


def mushroom(random: np.random.Generator) -> Parts:
    """A stem with a wide cap."""
    cap, thick, stem, length = _draw(
        random, (0.080, 0.105), (0.040, 0.055), (0.045, 0.058), (0.050, 0.065)
    )
    return (
        _part("cylinder", (stem, length), (0, 0, length / 2)),
        _part("ellipsoid", (cap, cap, thick), (0, 0, length + 0.2 * thick)),
    )


def bracket(random: np.random.Generator) -> Parts:
    """Two plates at a right angle."""
    length, depth, height, thick = _draw(
        random, (0.080, 0.120), (0.050, 0.080), (0.070, 0.100), (0.025, 0.035)
    )
    return (
        _part("box", (length, depth, thick), (length / 2, 0, thick / 2)),
        _part("box", (thick, depth, height - thick), (thick / 2, 0, (height + thick) / 2)),
    )


def spool(random: np.random.Generator) -> Parts:
    """Two discs with a core between them, standing."""
    disc, thick, core, length = _draw(
        random, (0.070, 0.095), (0.014, 0.022), (0.035, 0.050), (0.045, 0.070)
    )
    return (
        _part("cylinder", (disc, thick), (0, 0, thick / 2)),
        _part("cylinder", (core, length), (0, 0, thick + length / 2)),
        _part("cylinder", (disc, thick), (0, 0, 1.5 * thick + length)),
    )


def arch(random: np.random.Generator) -> Parts:
    """Two pillars and a beam."""
    width, depth, pillar, height, beam = _draw(
        random,
        (0.090, 0.120),
        (0.040, 0.060),
        (0.024, 0.034),
        (0.050, 0.070),
        (0.025, 0.035),
    )
    offset = (width - pillar) / 2
    return (
        _part("box", (pillar, depth, height), (offset, 0, height / 2)),
        _part("box", (pillar, depth, height), (-offset, 0, height / 2)),
        _part("box", (width, depth, beam), (0, 0, height + beam / 2)),
    )


def pawn(random: np.random.Generator) -> Parts:
    """A foot, a body that lies across it and a knob."""
    foot, body, knob = _draw(random, (0.060, 0.080), (0.075, 0.100), (0.030, 0.040))
    thick = 0.03
    return (
        _part("cylinder", (foot, thick), (0, 0, thick / 2)),
        _part("capsule", (0.045, body), (0, 0, thick + 0.018)),
        _part("sphere", (knob,), (0, 0, thick + 0.045 + 0.2 * knob)),
    )


TRAIN_KINDS = (mug, bottle, mallet, dumbbell, bowl, cross, steps, lamp)
HELD_OUT_KINDS = (mushroom, bracket, spool, arch, pawn)


def _draw(random: np.random.Generator, *limits: tuple[float, float]) -> list[float]:
    return [random.uniform(low, high) for low, high in limits]


def _part(
    shape: Primitive,
    size: tuple[float, ...],
    position: Vector3,
    rpy: Vector3 = (0.0, 0.0, 0.0),
) -> PartConfig:
    """A part with all its numbers rounded to 0.1 mm or 0.1 mrad."""
    x, y, z = (round(value, 4) for value in position)
    roll, pitch, yaw = (round(value, 4) for value in rpy)
    lengths = tuple(round(value, 4) for value in size)
    return PartConfig(shape, lengths, (x, y, z), (roll, pitch, yaw))
