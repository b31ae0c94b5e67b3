"""What `dexgrasp doctor --robot` says about computers whose facts were recorded."""

import resource

import pytest

from dexgrasp_deploy.checks import machine
from dexgrasp_deploy.checks.finding import Outcome, failed, lines, ok, report, unknown
from dexgrasp_deploy.checks.machine import Machine

OK, WARNING, FAILED, UNKNOWN = Outcome.OK, Outcome.WARNING, Outcome.FAILED, Outcome.UNKNOWN
VGA = 640 * 480 * 3


def computer(root, files=(), answer=None, limits=(), free=10**9, environment=()):
    for name, text in dict(files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(
        root,
        run=lambda words: answer,
        limit=lambda which: dict(limits).get(which, 0),
        free=lambda path: free,
        environment=dict(environment),
    )


def outcomes(findings):
    return [finding.outcome for finding in findings]


@pytest.mark.parametrize(
    ("priority", "memory", "expected"),
    [
        (99, resource.RLIM_INFINITY, [OK, OK]),
        (resource.RLIM_INFINITY, 64 << 20, [OK, OK]),
        (0, 8 << 20, [WARNING, WARNING]),
    ],
)
def test_limits_of_real_time_processes(tmp_path, priority, memory, expected):
    limits = {resource.RLIMIT_RTPRIO: priority, resource.RLIMIT_MEMLOCK: memory}
    found = list(machine.real_time(computer(tmp_path, limits=limits)))
    assert outcomes(found) == expected
    assert all("limits.d" in each.remedy for each in found if each.outcome is WARNING)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/kernel/realtime": "1\n"}, OK),
        ({"proc/version": "Linux version 6.12.1 #1 SMP PREEMPT_RT Debian"}, OK),
        ({"proc/version": "Linux version 6.8.0-49-generic #49 SMP PREEMPT_DYNAMIC"}, WARNING),
        ({}, UNKNOWN),
    ],
)
def test_kernel(tmp_path, files, expected):
    assert outcomes(machine.kernel(computer(tmp_path, files))) == [expected]


@pytest.mark.parametrize(
    ("governors", "expected"),
    [(["performance"] * 2, OK), (["performance", "powersave"], WARNING), ([], UNKNOWN)],
)
def test_governor(tmp_path, governors, expected):
    name = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"
    files = {name.format(index): f"{text}\n" for index, text in enumerate(governors)}
    assert outcomes(machine.governor(computer(tmp_path, files))) == [expected]


@pytest.mark.parametrize(
    ("answer", "expected"), [("yes\n", OK), ("no\n", WARNING), ("", UNKNOWN), (None, UNKNOWN)]
)
def test_clock(tmp_path, answer, expected):
    assert outcomes(machine.clock(computer(tmp_path, answer=answer))) == [expected]


MEMORY = """<dds xmlns="http://www.eprosima.com"><profiles><transport_descriptors>
<transport_descriptor><transport_id>a</transport_id><type>{kind}</type>{size}
</transport_descriptor></transport_descriptors><participant profile_name="p"><rtps>
<userTransports><transport_id>a</transport_id></userTransports></rtps></participant>
</profiles></dds>"""


@pytest.mark.parametrize(
    ("profile", "image_bytes", "expected", "words"),
    [
        (("SHM", "<segment_size>16777216</segment_size>"), VGA, OK, "16384 kB for images of 900"),
        (("SHM", "<segment_size>2000000</segment_size>"), VGA, WARNING, "need 3600 kB"),
        (("SHM", ""), VGA, WARNING, "a segment of 512 kB"),
        (("UDPv4", ""), VGA, WARNING, "no shared memory transport"),
        (None, VGA, WARNING, "without a profile: a segment of 512 kB"),
        (None, 1000, OK, "512 kB"),
    ],
)
def test_memory_of_dds(tmp_path, profile, image_bytes, expected, words):
    environment = {}
    if profile:
        (tmp_path / "p.xml").write_text(MEMORY.format(kind=profile[0], size=profile[1]))
        environment["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(tmp_path / "p.xml")
    here = computer(tmp_path, environment=environment)
    first, second = machine.dds_memory(here, image_bytes)
    assert first.outcome is expected and words in first.text
    assert second.outcome is OK


def test_memory_that_is_full_or_of_another_middleware(tmp_path):
    here = computer(tmp_path, free=1 << 20)
    assert outcomes(machine.dds_memory(here, 1000)) == [OK, FAILED]
    other = computer(tmp_path, environment={"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"})
    assert outcomes(machine.dds_memory(other, 1000)) == [UNKNOWN]


def test_the_readers_of_a_real_computer_do_not_raise():
    here = Machine()
    checks = (machine.real_time, machine.kernel, machine.governor, machine.clock)
    assert all(isinstance(each.outcome, Outcome) for check in checks for each in check(here))
    assert machine.run_command(["no_such_program_here"]) is None
    assert machine.run_command(["false"]) is None
    assert machine.run_command(["echo", "a"]) == "a\n"


def test_what_was_not_looked_at_is_not_counted_as_good():
    found = [ok("a", "fine"), unknown("b", "nothing there"), failed("c", "broken", "mend it")]
    assert report(found)["ok"] is False
    assert report(found)["counts"] == {"ok": 1, "warning": 0, "failed": 1, "unknown": 1}
    text = list(lines(found))
    assert text[2] == "failed   c  broken; mend it"
    assert text[-1] == "1 failed, 0 warnings, 1 not looked at, 1 ok"
    assert report(found[:2])["ok"] is True
