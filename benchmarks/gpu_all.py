"""Everything that needs a GPU host, in order of value, within a budget of time.

`python -m benchmarks.gpu_all --budget-s 300 --out DIR [--parts NAME ...]`

Each part is a process with a time-out of its own; a part that fails costs only itself. After each
part `DIR` holds what there is: one JSON file for each benchmark, `gpu_all.json` with the state of
every part, and `logs.tar.xz` with their output and the trained run. A later call with the same
`--work` folder, or with the files of an earlier one in it, continues.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import CHECKOUT
from benchmarks.gpu.plan import Part, Plan
from benchmarks.gpu_train import ARCHIVE
from dexgrasp_learner.storage.provenance import provenance
from dexgrasp_sim.arguments import number

_RESERVE_S = 15.0
"""Left at the end for the last files."""
_LEAST_S = 20.0
"""A part does not begin with less."""
_PACKED_BYTES = 14 * 2**20


class Host:
    """Runs parts one after the other and keeps the output folder up to date."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Makes the folders.

        Args:
            options: Of the command line.
        """
        self._options = options
        self._end_s = time.monotonic() + options.budget_s
        self._logs = options.work / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        options.out.mkdir(parents=True, exist_ok=True)
        self.states: dict[str, dict[str, Any]] = {}

    def run(self, part: Part) -> None:
        """Runs a part if there is time; then refreshes the output folder."""
        left_s = self._end_s - time.monotonic() - _RESERVE_S
        if left_s < _LEAST_S:
            self.states[part.name] = {"state": "no time left"}
            return
        timeout_s = min(part.timeout_s, left_s)
        started_s = time.monotonic()
        code, log = self._start(part, timeout_s)
        state = {0: "done", None: "timed out"}.get(code, f"failed with code {code}")
        self.states[part.name] = {
            "state": state,
            "seconds": round(time.monotonic() - started_s, 1),
            "last_lines": log.read_text(errors="replace").splitlines()[-12:],
        }
        print(
            f"gpu_all: {part.name}: {state} in {self.states[part.name]['seconds']} s", flush=True
        )
        for line in self.states[part.name]["last_lines"]:
            print(f"    {line[:300]}", flush=True)
        self._publish(part)

    def _start(self, part: Part, timeout_s: float) -> tuple[int | None, Path]:
        """Exit code, None after a time-out, and the log of a part's process."""
        log = self._logs / f"{part.name}.log"
        environment = {
            **os.environ,
            "DEXGRASP_TEST_DEVICE": self._options.device,
            "PYTHONUNBUFFERED": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *part.command(timeout_s)],
                cwd=CHECKOUT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(timeout_s), log
            except subprocess.TimeoutExpired:
                _end_session(process)
                return None, log

    def _publish(self, part: Part) -> None:
        """Writes what there is into the output folder."""
        work, out, commit = self._options.work, self._options.out, self._options.commit
        result = work / part.result
        if part.result and result.is_file():
            content = json.loads(result.read_text())
            if commit:
                content["provenance"]["commit"] = commit
            (out / part.result).write_text(json.dumps(content, indent=2) + "\n")
        machine = provenance()
        if commit:
            machine["commit"] = commit
        summary = {"parts": self.states, "provenance": machine}
        (out / "gpu_all.json").write_text(json.dumps(summary, indent=2) + "\n")
        with tarfile.open(out / "logs.tar.xz", "w:xz") as packed:
            packed.add(self._logs, arcname="logs")
            archive = work / ARCHIVE
            if archive.is_file() and archive.stat().st_size < _PACKED_BYTES:
                packed.add(archive, arcname=ARCHIVE)


def _end_session(process: subprocess.Popen[Any]) -> None:
    """Ends a process and those that it has started."""
    for signal_number in (15, 9):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            return
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the list; 0 if every part that had time has succeeded, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the few result files")
    parser.add_argument("--work", type=Path, default=Path("/tmp/dexgrasp_gpu"))
    parser.add_argument("--earlier", type=Path, help="files of an earlier call, to continue from")
    parser.add_argument(
        "--budget-s", type=number(0.0), default=540.0, help="time for all parts, s"
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--backend", default="mujoco_warp")
    parser.add_argument("--tiny", action="store_true", help="sizes for a try on a CPU")
    parser.add_argument("--commit", default="", help="of this source, where git cannot say it")
    parser.add_argument("--parts", nargs="+", help="names, in this order; default: all")
    parser.add_argument("--list", action="store_true", help="names the parts and ends")
    options = parser.parse_args(arguments)
    plan = Plan(options.work, options.device, options.backend, options.tiny)
    known = {part.name: part for part in plan.parts()}
    chosen = options.parts or [*known]
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"--parts {' '.join(unknown)}: there are {', '.join(known)}")
    if options.list:
        print("\n".join(known))
        return 0
    host = Host(options)
    if options.earlier:
        shutil.copytree(options.earlier, options.work, dirs_exist_ok=True)
    for name in chosen:
        host.run(known[name])
    states = [state["state"] for state in host.states.values()]
    return int(any(state.startswith(("failed", "timed")) for state in states))


if __name__ == "__main__":
    sys.exit(main())
