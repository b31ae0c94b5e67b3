"""Simulation side of dexgrasp. Sets how OpenMP waits before any module here imports torch."""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    # idle threads of torch must not spin: where cores are shared, an update with two threads took
    # 9.4 s instead of 2.2 s; GNU OpenMP reads this when it is loaded
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
