"""The computer itself: limits of real-time processes, CPU, kernel, clock, memory of DDS."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from dexgrasp_deploy.checks.finding import Finding, failed, ok, unknown, warning

_COMMAND_S = 10.0
_LOCKED_MEMORY = 64 << 20
"""Bytes that a control process of a few libraries needs to stay in memory."""
_DEFAULT_SEGMENT = 512 << 10
"""Bytes of the shared memory segment of Fast DDS (fast-dds.docs.eprosima.com, SHM transport)."""
_IMAGES_IN_FLIGHT = 4
"""A segment that holds fewer images loses some; with the 16 MB of dexgrasp's profile none are."""
_GROUP = (
    "put `@realtime - {item} {value}` into /etc/security/limits.d/realtime.conf and your user "
    "into the group realtime, then log in again"
)


def run_command(words: Sequence[str]) -> str | None:
    """What a program prints; None where there is no such program, or it fails or hangs."""
    try:
        result = subprocess.run(
            list(words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def soft_limit(which: int) -> int:
    """A limit of this process, -1 for none; see `resource.getrlimit`."""
    return resource.getrlimit(which)[0]


def free_bytes(path: Path) -> int | None:
    """Free space of the file system of a folder; None where there is no such folder."""
    return shutil.disk_usage(path).free if path.is_dir() else None


@dataclass(frozen=True)
class Machine:
    """How checks look at a computer.

    Attributes:
        root: Where its files are.
        run: Runs a program, see `run_command`.
        limit: See `soft_limit`.
        free: See `free_bytes`.
        environment: With which nodes are started.
    """

    root: Path = Path("/")
    run: Callable[[Sequence[str]], str | None] = run_command
    limit: Callable[[int], int] = soft_limit
    free: Callable[[Path], int | None] = free_bytes
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def read(self, path: str | Path) -> str | None:
        """Text of a file below the root; None where it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return None


def real_time(machine: Machine) -> Iterator[Finding]:
    """Whether processes of this user may have real-time priority and stay in memory."""
    priority = machine.limit(resource.RLIMIT_RTPRIO)
    if priority:
        yield ok("real-time priority", f"up to {'any' if priority < 0 else priority}")
    else:
        remedy = _GROUP.format(item="rtprio", value=99)
        yield warning("real-time priority", "not allowed to this user (ulimit -r is 0)", remedy)
    memory = machine.limit(resource.RLIMIT_MEMLOCK)
    if memory < 0 or memory >= _LOCKED_MEMORY:
        yield ok("locked memory", "unlimited" if memory < 0 else f"up to {memory >> 20} MB")
    else:
        text = f"at most {memory >> 10} kB (ulimit -l), {_LOCKED_MEMORY >> 20} MB are needed"
        yield warning("locked memory", text, _GROUP.format(item="memlock", value="unlimited"))


def kernel(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel is a real-time one; robots with a fast bus of their own need it."""
    version = machine.read("proc/version")
    if machine.read("sys/kernel/realtime") == "1" or (version and "PREEMPT_RT" in version):
        yield ok("kernel", "PREEMPT_RT")
    elif version is None:
        yield unknown("kernel", "its version cannot be read")
    else:
        yield warning(
            "kernel",
            "without PREEMPT_RT: periods may be late by milliseconds under load",
            "install a real-time kernel where the arm's driver runs (Franka needs one)",
        )


def governor(machine: Machine) -> Iterator[Finding]:
    """Whether the CPUs run at full speed; else they need time to speed up for each period."""
    files = sorted((machine.root / "sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor"))
    found = sorted({file.read_text().strip() for file in files})
    if not found:
        yield unknown("CPU governor", "this computer shows none (a virtual machine?)")
    elif found == ["performance"]:
        yield ok("CPU governor", f"performance on {len(files)} CPUs")
    else:
        yield warning(
            "CPU governor",
            f"{', '.join(found)}: CPUs slow down between two periods",
            "run `sudo cpupower frequency-set -g performance`",
        )


def clock(machine: Machine) -> Iterator[Finding]:
    """Whether the clock of this computer is kept by a time server."""
    answer = machine.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    state = (answer or "").strip()
    if state == "yes":
        yield ok("clock", "synchronised")
    elif state == "no":
        yield warning(
            "clock",
            "not synchronised: stamps of other computers cannot be compared with it",
            "start chrony or systemd-timesyncd on every computer of the robot",
        )
    else:
        yield unknown("clock", "timedatectl does not tell whether it is synchronised")


def dds_memory(machine: Machine, image_bytes: int) -> Iterator[Finding]:
    """Whether images fit into the shared memory of DDS, without which many are lost.

    Args:
        machine: The computer.
        image_bytes: Size of one image on topics.
    """
    name = "DDS shared memory"
    middleware = machine.environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if "fastrtps" not in middleware:
        yield unknown(name, f"settings of {middleware} are not known here")
        return
    profile, segment = _segment(machine.environment)
    needed = _IMAGES_IN_FLIGHT * image_bytes
    source = profile or "Fast DDS without a profile"
    if segment is None:
        yield warning(
            name,
            f"{source} has no shared memory transport: images cross the network stack",
            "unset FASTRTPS_DEFAULT_PROFILES_FILE for that of dexgrasp, or add a transport of "
            "type SHM",
        )
    elif segment < needed:
        yield warning(
            name,
            f"{source}: a segment of {segment >> 10} kB, images of {image_bytes >> 10} kB need "
            f"{needed >> 10} kB: some are lost",
            "let every node use scripts/fastdds.xml of dexgrasp (`dexgrasp up` does), or a larger "
            "segment_size",
        )
    else:
        yield ok(
            name, f"{source}: a segment of {segment >> 10} kB for images of {image_bytes >> 10} kB"
        )
    place = machine.root / "dev/shm"
    free = machine.free(place)
    if free is None:
        yield unknown("/dev/shm", "there is none")
    elif segment and free < _IMAGES_IN_FLIGHT * segment:
        yield failed(
            "/dev/shm",
            f"{free >> 20} MB free, the nodes need {_IMAGES_IN_FLIGHT * segment >> 20} MB",
            "enlarge it (docker run --shm-size=1g), or remove what fills it",
        )
    else:
        yield ok("/dev/shm", f"{free >> 20} MB free")


def _segment(environment: Mapping[str, str]) -> tuple[str, int | None]:
    """Profile file and bytes of its shared memory segment; None: no shared memory is used."""
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    path = next((environment[name] for name in names if environment.get(name)), "")
    if not path:
        builtin = environment.get("FASTDDS_BUILTIN_TRANSPORTS", "DEFAULT")
        has = builtin.partition("?")[0] in ("DEFAULT", "DEFAULTv6", "SHM", "LARGE_DATA")
        return "", _DEFAULT_SEGMENT if has else None
    try:
        tree = ElementTree.parse(path)
    except (OSError, ElementTree.ParseError):
        return path, None  # ros_settings says what is wrong with it
    sizes = [_size_of(transport) for transport in tree.iter() if _is_memory(transport)]
    custom = any(each.tag.endswith("userTransports") for each in tree.iter())
    default = None if custom else _DEFAULT_SEGMENT
    return path, max(sizes, default=default)


def _is_memory(element: ElementTree.Element) -> bool:
    is_transport = element.tag.endswith("transport_descriptor")
    kinds = [child.text for child in element if child.tag.endswith("type")]
    return is_transport and kinds == ["SHM"]


def _size_of(transport: ElementTree.Element) -> int:
    sizes = [child.text or "" for child in transport if child.tag.endswith("segment_size")]
    return int(sizes[0]) if sizes and sizes[0].strip().isdigit() else _DEFAULT_SEGMENT
