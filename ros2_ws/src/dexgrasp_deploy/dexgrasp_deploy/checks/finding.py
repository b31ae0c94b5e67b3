"""What a check found out: one line with an outcome, and what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Outcome(str, Enum):
    """How a check ended; `UNKNOWN`: it could not be looked at."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: What was looked at.
        outcome: How it is.
        text: What was found.
        remedy: What to do about it; "" where nothing is to be done.
    """

    check: str
    outcome: Outcome
    text: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """JSON values."""
        return {
            "check": self.check,
            "outcome": self.outcome.value,
            "text": self.text,
            "remedy": self.remedy,
        }


def ok(check: str, text: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, Outcome.OK, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """It may work."""
    return Finding(check, Outcome.WARNING, text, remedy)


def failed(check: str, text: str, remedy: str = "") -> Finding:
    """It cannot work."""
    return Finding(check, Outcome.FAILED, text, remedy)


def unknown(check: str, text: str, remedy: str = "") -> Finding:
    """Nobody has looked."""
    return Finding(check, Outcome.UNKNOWN, text, remedy)


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """JSON values: `ok` (no check failed), the number of each outcome, and `checks`."""
    counts = {each.value: sum(f.outcome is each for f in findings) for each in Outcome}
    return {
        "ok": not counts[Outcome.FAILED.value],
        "counts": counts,
        "checks": [finding.to_dict() for finding in findings],
    }


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """The report as text: a line for each check, and one for all."""
    width = max((len(finding.check) for finding in findings), default=0)
    for each in findings:
        remedy = f"; {each.remedy}" if each.remedy else ""
        yield f"{each.outcome.value:7}  {each.check:{width}}  {each.text}{remedy}"
    counts = report(findings)["counts"]
    yield ""
    yield (
        f"{counts['failed']} failed, {counts['warning']} warnings, {counts['unknown']} not looked "
        f"at, {counts['ok']} ok"
    )
