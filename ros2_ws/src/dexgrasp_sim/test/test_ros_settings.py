"""Each setting that ROS reads from the environment: what is right passes, the rest says why."""

import pytest

from dexgrasp_sim.ros_settings import SETTINGS, find_problems

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"


@pytest.fixture
def prefix(tmp_path):
    """A ROS installation with one middleware."""
    index = tmp_path / "ros" / "share/ament_index/resource_index/rmw_typesupport"
    index.mkdir(parents=True)
    for name in ("rmw_fastrtps_cpp", "rmw_implementation"):
        (index / name).touch()
    return install_rclpy(tmp_path / "ros")


def install_rclpy(prefix):
    (prefix / "share/rclpy").mkdir(parents=True)
    (prefix / "share/rclpy/package.xml").touch()
    (prefix / "lib/python3/site-packages/rclpy").mkdir(parents=True)
    return prefix


def found(prefix, **settings):
    own = {"AMENT_PREFIX_PATH": str(prefix), "HOME": str(prefix)}
    environment = {**own, **settings}
    environment = {name: value for name, value in environment.items() if value is not None}
    return find_problems(environment), find_problems(environment, stops=False)


def test_an_environment_without_settings_is_right(prefix):
    assert found(prefix) == ([], [])
    empty = {setting.variable: "" for setting in SETTINGS if setting.variable.startswith("ROS")}
    assert found(prefix, **empty) == ([], [])


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"),
        ("ROS_DOMAIN_ID", "0"),
        ("ROS_DOMAIN_ID", "101"),
        ("ROS_DOMAIN_ID", "215"),
        ("ROS_DOMAIN_ID", "232"),
        (RANGE, "SUBNET"),
        ("ROS_LOCALHOST_ONLY", "1"),
        ("ROS_STATIC_PEERS", "127.0.0.1;localhost"),
        ("ROS_SECURITY_ENABLE", "false"),
        ("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA?max_msg_size=2MB"),
        ("RCUTILS_COLORIZED_OUTPUT", "0"),
    ],
)
def test_right_values_pass(prefix, variable, value):
    assert found(prefix, **{variable: value}) == ([], [])


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp", "set it to rmw_fastrtps_cpp"),
        ("ROS_DOMAIN_ID", "abc", "take 0 to 101"),
        ("ROS_DOMAIN_ID", "-1", "take 0 to 101"),
        ("ROS_DOMAIN_ID", "233", "take 0 to 101"),
        (RANGE, "OFF", "LOCALHOST or SUBNET"),
        (RANGE, "localhost", "must be one of LOCALHOST"),
        ("ROS_LOCALHOST_ONLY", "yes", "must be 0 or 1"),
        ("ROS_STATIC_PEERS", "127.0.0.1,127.0.0.2", "with `;` between"),
        ("ROS_DISCOVERY_SERVER", "nohost", "`host:port`"),
        (PROFILES, "/none/profiles.xml", "mend the file, or unset it"),
        ("FASTDDS_DEFAULT_PROFILES_FILE", "/none/profiles.xml", "mend the file, or unset it"),
        ("FASTDDS_BUILTIN_TRANSPORTS", "TCP", "must be one of NONE"),
        ("ROS_SECURITY_ENABLE", "true", "ROS_SECURITY_KEYSTORE"),
        ("RCUTILS_COLORIZED_OUTPUT", "yes", "must be 0 or 1"),
        ("ROS_LOG_DIR", "/proc/none", "set ROS_LOG_DIR to a folder"),
        ("HOME", "/proc/none", "set ROS_LOG_DIR to a folder"),
        ("HOME", None, "set HOME or ROS_LOG_DIR"),
    ],
)
def test_each_wrong_value_has_its_own_remedy(prefix, variable, value, remedy):
    problems, _ = found(prefix, **{variable: value})
    (problem,) = problems
    assert problem.startswith(variable) and remedy in problem
    assert "\n" not in problem and "make clean setup" not in problem


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"ROS_DOMAIN_ID": "102"}, "215 to 232"),
        ({"ROS_DOMAIN_ID": "214"}, "215 to 232"),
        ({"ROS_LOCALHOST_ONLY": "1", "ROS_STATIC_PEERS": "127.0.0.1"}, "ignore ROS_STATIC_PEERS"),
        ({"ROS_LOCALHOST_ONLY": "1", RANGE: "SUBNET"}, f"ignore {RANGE}"),
        ({"ROS_DISCOVERY_SERVER": "127.0.0.1:11811"}, "fastdds discovery"),
        ({"ROS_SECURITY_ENABLE": "1"}, "true or false"),
    ],
)
def test_what_may_be_meant_is_a_hint(prefix, settings, hint):
    problems, hints = found(prefix, **settings)
    assert problems == [] and len(hints) == 1 and hint in hints[0]


def test_logs_may_go_elsewhere_than_home(prefix, tmp_path):
    assert found(prefix, HOME=None, ROS_LOG_DIR=str(tmp_path / "log")) == ([], [])
    assert found(prefix, HOME=None, ROS_HOME=str(tmp_path)) == ([], [])


def test_a_profile_must_be_xml(prefix, tmp_path):
    file = tmp_path / "profiles.xml"
    file.write_text("<dds><profiles/></dds>")
    assert found(prefix, **{PROFILES: str(file)}) == ([], [])
    file.write_text("<dds><profiles>")
    (problem,), _ = found(prefix, **{PROFILES: str(file)})
    assert "is no XML" in problem


def test_a_keystore_makes_security_right(prefix, tmp_path):
    (tmp_path / "keys" / "enclaves").mkdir(parents=True)
    settings = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": str(tmp_path / "keys")}
    assert found(prefix, **settings) == ([], [])
    (problem,), _ = found(prefix, **{**settings, "ROS_SECURITY_KEYSTORE": str(tmp_path)})
    assert "holds no `enclaves`" in problem


def test_two_installations_are_a_mixture(prefix, tmp_path):
    other = install_rclpy(tmp_path / "humble")
    site = "lib/python3/site-packages"
    for settings in (
        {"AMENT_PREFIX_PATH": f"{prefix}:{other}"},
        {"PYTHONPATH": f"{other / site}"},
    ):
        (problem,), _ = found(prefix, **settings)
        assert str(prefix) in problem and str(other) in problem
        assert "only one of them is sourced" in problem
    assert found(prefix, PYTHONPATH=f"{prefix / site}") == ([], [])
