"""Units of numbers in configs, told from the ends of their names, and what is plausible."""

from typing import NamedTuple


class Unit(NamedTuple):
    """A unit and the range of magnitudes in it that are no mistakes; 0 is always in it.

    Attributes:
        symbol: "" for none.
        smallest: Of those that are not 0.
        largest: Wide enough for every use, so that what is beyond has the wrong unit or a wrong
            exponent.
    """

    symbol: str
    smallest: float
    largest: float


NO_UNIT = Unit("", 0.0, 1e30)
"""Networks and simulators compute in float32, which ends at 3.4e38."""

_UNITS = {
    "_kg_m3": Unit("kg/m3", 1.0, 1e5),
    "_rad_s3": Unit("rad/s3", 1e-6, 1e6),
    "_rad_s2": Unit("rad/s2", 1e-6, 1e5),
    "_s_rad": Unit("s/rad", 1e-6, 1e6),
    "_rad_s": Unit("rad/s", 1e-6, 1e3),
    "_m_s2": Unit("m/s2", 1e-6, 1e4),
    "_m_s": Unit("m/s", 1e-6, 1e3),
    "_s_m": Unit("s/m", 1e-6, 1e6),
    "_per_m": Unit("1/m", 1e-6, 1e6),
    "_per_s": Unit("1/s", 1e-6, 1e6),
    "_minutes": Unit("min", 1e-6, 1e6),
    "_steps": Unit("steps", 0.0, 1e15),
    "_share": Unit("", 0.0, 1.0),
    "_deg": Unit("deg", 1e-3, 360.0),
    "_rad": Unit("rad", 0.0, 100.0),
    "_hz": Unit("Hz", 1e-3, 1e4),
    "_kg": Unit("kg", 1e-6, 1e3),
    "_px": Unit("px", 0.0, 1e5),
    "_m2": Unit("m2", 0.0, 1e4),
    "_us": Unit("us", 0.0, 1e6),
    "_m": Unit("m", 0.0, 1e3),
    "_s": Unit("s", 1e-6, 1e6),
}
"""By the end of the name, longer ends first."""


def unit_of(name: str) -> Unit:
    """The unit with which a key's name ends, `NO_UNIT` for none."""
    return next((unit for end, unit in _UNITS.items() if f"_{name}".endswith(end)), NO_UNIT)


def implausible(value: float, unit: Unit) -> str:
    """What is wrong with a number in a unit, "" if nothing."""
    low, high, symbol = unit.smallest, unit.largest, f" {unit.symbol}" if unit.symbol else ""
    if abs(value) > high:
        return f"the magnitude is at most {high:g}{symbol}; correct the unit or the exponent"
    if value and abs(value) < low:
        return f"the magnitude is 0 or at least {low:g}{symbol}; correct the unit or the exponent"
    return ""
