"""Measurements of this repository, run by `dexgrasp bench`; not part of the installed package."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
"""Working directory for `python -m benchmarks.NAME`."""
