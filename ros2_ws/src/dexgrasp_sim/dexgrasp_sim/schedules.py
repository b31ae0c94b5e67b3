"""Parameters that change with the difficulty of automatic domain randomization."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, overload

from pydantic import (
    AfterValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT

Interval = tuple[float, float]


@dataclass(frozen=True, config=STRICT)
class Schedule:
    """An interval from which a parameter is drawn; it changes linearly with the difficulty.

    Attributes:
        initial: Lower and upper end at difficulty 0.
        final: The same at difficulty 1; None: as `initial`.
    """

    initial: Interval
    final: Interval | None = None

    @model_validator(mode="after")
    def _check(self) -> "Schedule":
        for name, (low, high) in (("initial", self.initial), ("final", self.end)):
            if low > high:
                raise ValueError(
                    f"`{name}` [{low:g}, {high:g}] has its lower end above its upper end; "
                    "give the smaller number first"
                )
        return self

    @property
    def end(self) -> Interval:
        """The interval at difficulty 1."""
        return self.initial if self.final is None else self.final

    def at(self, difficulty: float) -> Interval:
        """The interval at a difficulty in [0, 1]."""
        first, last = (
            start + difficulty * (stop - start)
            for start, stop in zip(self.initial, self.end, strict=True)
        )
        return first, last

    def sample(self, difficulty: float, uniform: Tensor) -> Tensor:
        """Maps uniform numbers in [0, 1) of any shape to the interval at a difficulty."""
        low, high = self.at(difficulty)
        return low + (high - low) * uniform

    def sample_whole(self, difficulty: float, uniform: Tensor) -> Tensor:
        """Maps uniform numbers in [0, 1) to int64 numbers from one rounded end to the other."""
        low, high = (round(end) for end in self.at(difficulty))
        return low + (uniform * (high - low + 1)).long()

    def is_always(self, value: float) -> bool:
        """Whether every draw at every difficulty gives `value`."""
        return self.initial == self.end == (value, value)

    @property
    def largest(self) -> float:
        """The largest number that is ever drawn."""
        return max(self.initial[1], self.end[1])

    @property
    def smallest(self) -> float:
        """The smallest number that is ever drawn."""
        return min(self.initial[0], self.end[0])


def constant(value: float) -> Schedule:
    """A schedule that gives `value` at every difficulty."""
    return Schedule(initial=(value, value))


def _non_negative(schedule: Schedule) -> Schedule:
    if schedule.smallest < 0.0:
        raise ValueError(f"{schedule.smallest:g} is below 0; give numbers from 0 up")
    return schedule


def _positive(schedule: Schedule) -> Schedule:
    if schedule.smallest <= 0.0:
        raise ValueError(f"{schedule.smallest:g} is not above 0; give numbers above 0")
    return schedule


NonNegativeSchedule = Annotated[Schedule, AfterValidator(_non_negative)]
PositiveSchedule = Annotated[Schedule, AfterValidator(_positive)]


@dataclass(frozen=True, config=STRICT)
class Ramp:
    """A number that changes linearly with the difficulty; a config may give a plain number.

    Attributes:
        initial: At difficulty 0.
        final: At difficulty 1; None: as `initial`.
    """

    initial: float
    final: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"initial": value} if isinstance(value, int | float) else value

    @model_serializer(mode="wrap")
    def _to_number(self, write: SerializerFunctionWrapHandler) -> Any:
        return self.initial if self.final is None else write(self)

    @property
    def end(self) -> float:
        """The number at difficulty 1."""
        return self.initial if self.final is None else self.final

    @overload
    def at(self, difficulty: float) -> float: ...

    @overload
    def at(self, difficulty: Tensor) -> Tensor: ...

    def at(self, difficulty: float | Tensor) -> float | Tensor:
        """The number at one difficulty in [0, 1], or the numbers at several."""
        return self.initial + difficulty * (self.end - self.initial)


def _non_negative_ramp(ramp: Ramp) -> Ramp:
    if min(ramp.initial, ramp.end) < 0.0:
        raise ValueError(f"{min(ramp.initial, ramp.end):g} is below 0; give numbers from 0 up")
    return ramp


def _positive_ramp(ramp: Ramp) -> Ramp:
    if min(ramp.initial, ramp.end) <= 0.0:
        raise ValueError(f"{min(ramp.initial, ramp.end):g} is not above 0; give numbers above 0")
    return ramp


NonNegativeRamp = Annotated[Ramp, AfterValidator(_non_negative_ramp)]
PositiveRamp = Annotated[Ramp, AfterValidator(_positive_ramp)]


def current_ranges(config: Any, difficulty: float) -> dict[str, Interval]:
    """The values at a difficulty of all ramps and schedules that change with it or are random.

    Args:
        config: A config dataclass; those inside it are searched too.
        difficulty: In [0, 1].

    Returns:
        Dotted name of the parameter to its interval, whose ends are equal for a ramp.
    """
    found: dict[str, Interval] = {}
    for name, value in _named_values(config):
        if isinstance(value, Schedule):
            if value.final is not None or value.initial[0] != value.initial[1]:
                found[name] = value.at(difficulty)
        elif isinstance(value, Ramp):
            if value.initial != value.end:
                number = value.at(difficulty)
                found[name] = (number, number)
        else:
            inner = current_ranges(value, difficulty)
            found |= {f"{name}.{key}": interval for key, interval in inner.items()}
    return found


def _named_values(config: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass, the values of pairs of a name and a value, or nothing."""
    if dataclasses.is_dataclass(config):
        yield from (
            (field.name, getattr(config, field.name)) for field in dataclasses.fields(config)
        )
    elif isinstance(config, tuple):
        pairs = (item for item in config if isinstance(item, tuple) and len(item) == 2)
        yield from (pair for pair in pairs if isinstance(pair[0], str))
