"""What ROS reads from the environment: a table of settings, each with its check and its remedy.

Imports no ROS, which would end the process for some of the wrong values.
"""

import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

Environment = Mapping[str, str]

LAST_DOMAIN = 232
"""Of Fast DDS: the ports of the next one would be above 65535 (DDS-RTPS 2.5, 9.6.2.3)."""
_EPHEMERAL_DOMAINS = range(102, 215)
"""Their ports are among those that Linux gives to other programs (docs.ros.org, ROS_DOMAIN_ID)."""
_RANGES = ("LOCALHOST", "SUBNET", "OFF", "SYSTEM_DEFAULT")
_TRANSPORTS = ("NONE", "DEFAULT", "DEFAULTv6", "SHM", "UDPv4", "UDPv6", "LARGE_DATA")
"""Of FASTDDS_BUILTIN_TRANSPORTS (fast-dds.docs.eprosima.com, environment variables)."""
_SERVER = re.compile(r"((UDPv4|TCPv4|UDPv6|TCPv6):)?\[?[\w.:-]+\]?:\d+|[\w.-]+\.[\w.-]+")
_RMW_INDEX = Path("share/ament_index/resource_index/rmw_typesupport")


class Setting(NamedTuple):
    """One setting.

    Attributes:
        variable: Environment variable from which ROS reads it.
        problem: Says in one line what is wrong and what to do; "" if nothing is.
        stops: Whether nodes cannot work with it; else it is only a hint.
    """

    variable: str
    problem: Callable[[Environment], str]
    stops: bool = True


def find_problems(environment: Environment, stops: bool = True) -> list[str]:
    """What is wrong with the settings in an environment, or the hints if not `stops`."""
    found = [setting.problem(environment) for setting in SETTINGS if setting.stops == stops]
    return [text for text in found if text]


def _middleware(environment: Environment) -> str:
    name = environment.get("RMW_IMPLEMENTATION", "")
    installed = {
        file.name
        for prefix in _paths(environment, "AMENT_PREFIX_PATH")
        for file in (prefix / _RMW_INDEX).glob("*")
    } - {"rmw_implementation"}
    if not name or not installed or name in installed:
        return ""
    return (
        f"RMW_IMPLEMENTATION={name} is not installed; unset it, or set it to "
        f"{' or '.join(sorted(installed))}"
    )


def _domain(environment: Environment) -> str:
    text = environment.get("ROS_DOMAIN_ID", "")
    if not text or (re.fullmatch(r"\d+", text) and int(text) <= LAST_DOMAIN):
        return ""
    return f"ROS_DOMAIN_ID={text}: must be a number from 0 to {LAST_DOMAIN}; take 0 to 101"


def _ephemeral_ports(environment: Environment) -> str:
    text = environment.get("ROS_DOMAIN_ID", "")
    if not text.isdecimal() or int(text) not in _EPHEMERAL_DOMAINS:
        return ""
    return (
        f"ROS_DOMAIN_ID={text}: on Linux other programs may take its ports; "
        "take 0 to 101 or 215 to 232"
    )


def _discovery_range(environment: Environment) -> str:
    value = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if value not in ("", *_RANGES):
        return (
            f"ROS_AUTOMATIC_DISCOVERY_RANGE={value}: must be one of {', '.join(_RANGES)}; "
            "unset it for this host alone"
        )
    if value != "OFF" or environment.get("ROS_LOCALHOST_ONLY") == "1":
        return ""
    return (
        "ROS_AUTOMATIC_DISCOVERY_RANGE=OFF: no node finds another one; unset it, or set it to "
        "LOCALHOST or SUBNET"
    )


def _localhost_only(environment: Environment) -> str:
    value = environment.get("ROS_LOCALHOST_ONLY", "")
    if value in ("", "0", "1"):
        return ""
    return f"ROS_LOCALHOST_ONLY={value}: must be 0 or 1; unset it, ROS no longer needs it"


def _localhost_wins(environment: Environment) -> str:
    if environment.get("ROS_LOCALHOST_ONLY") != "1":
        return ""
    given = environment.get("ROS_STATIC_PEERS", "")
    wide = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "") not in ("", "LOCALHOST")
    if not given and not wide:
        return ""
    loser = "ROS_STATIC_PEERS" if given else "ROS_AUTOMATIC_DISCOVERY_RANGE"
    return f"ROS_LOCALHOST_ONLY=1 makes ROS ignore {loser}; unset ROS_LOCALHOST_ONLY"


def _static_peers(environment: Environment) -> str:
    for peer in filter(None, environment.get("ROS_STATIC_PEERS", "").split(";")):
        try:
            socket.getaddrinfo(peer, None)
        except (OSError, UnicodeError):
            return (
                f"ROS_STATIC_PEERS: {peer!r} is no host that can be found; name hosts or "
                "addresses with `;` between"
            )
    return ""


def _profiles(variable: str) -> Callable[[Environment], str]:
    def problem(environment: Environment) -> str:
        path = environment.get(variable, "")
        if not path:
            return ""
        try:
            ElementTree.parse(path)
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
        except ElementTree.ParseError as error:
            reason = f"is no XML ({error})"
        else:
            return ""
        return f"{variable}={path}: {reason}; mend the file, or unset it for that of dexgrasp"

    return problem


def _transports(environment: Environment) -> str:
    value = environment.get("FASTDDS_BUILTIN_TRANSPORTS", "")
    if not value or value.partition("?")[0].removesuffix("v6") in _TRANSPORTS:
        return ""
    return f"FASTDDS_BUILTIN_TRANSPORTS={value}: must be one of {', '.join(_TRANSPORTS)}; unset it"


def _discovery_server(environment: Environment) -> str:
    value = environment.get("ROS_DISCOVERY_SERVER", "")
    wrong = [part for part in value.split(";") if part and not _SERVER.fullmatch(part)]
    if not wrong:
        return ""
    return (
        f"ROS_DISCOVERY_SERVER: {wrong[0]!r} is no server; name servers as `host:port` with `;` "
        "between, or unset it"
    )


def _discovery_server_needed(environment: Environment) -> str:
    value = environment.get("ROS_DISCOVERY_SERVER", "")
    if not value:
        return ""
    return (
        f"ROS_DISCOVERY_SERVER={value}: nodes find each other through that server only; start it "
        "with `fastdds discovery`, or unset the variable"
    )


def _security(environment: Environment) -> str:
    if environment.get("ROS_SECURITY_ENABLE") != "true":
        return ""
    keystore = environment.get("ROS_SECURITY_KEYSTORE", "")
    if keystore and (Path(keystore) / "enclaves").is_dir():
        return ""
    what = f"={keystore}, which holds no `enclaves`" if keystore else ", which is not set"
    return (
        f"ROS_SECURITY_ENABLE=true needs ROS_SECURITY_KEYSTORE{what}; make it with "
        "`ros2 security create_keystore`, or unset ROS_SECURITY_ENABLE"
    )


def _security_words(environment: Environment) -> str:
    for variable, allowed in (
        ("ROS_SECURITY_ENABLE", ("true", "false")),
        ("ROS_SECURITY_STRATEGY", ("Enforce", "Permissive")),
    ):
        value = environment.get(variable, "")
        if value not in ("", *allowed):
            return f"{variable}={value} has no effect; set it to {' or '.join(allowed)}"
    return ""


def _log_folder(environment: Environment) -> str:
    home = environment.get("HOME", "")
    for variable, below in (("ROS_LOG_DIR", "."), ("ROS_HOME", "log"), ("HOME", ".ros/log")):
        if given := environment.get(variable, ""):
            folder = Path(given.replace("~", home, 1) if given[0] == "~" else given) / below
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)  # as ROS does
                if os.access(folder, os.W_OK | os.X_OK):
                    return ""
            return (
                f"{variable}={given}: the log folder {folder} cannot be written; set ROS_LOG_DIR "
                "to a folder that can"
            )
    return "HOME is not set, and ROS has no place for its logs; set HOME or ROS_LOG_DIR"


def _one_or_zero(variable: str) -> Callable[[Environment], str]:
    def problem(environment: Environment) -> str:
        value = environment.get(variable, "")
        return "" if value in ("", "0", "1") else f"{variable}={value}: must be 0 or 1; unset it"

    return problem


def _mixture(environment: Environment) -> str:
    prefixes = _paths(environment, "AMENT_PREFIX_PATH")
    holders = [prefix for prefix in prefixes if (prefix / "share/rclpy/package.xml").is_file()]
    for folder in _paths(environment, "PYTHONPATH"):
        if (folder / "rclpy").is_dir() and not any(h in folder.parents for h in holders):
            holders.append(folder)
    if len(holders) < 2:
        return ""
    return (
        f"two ROS installations are mixed: {' and '.join(map(str, holders))}; open a shell in "
        "which only one of them is sourced, or unset AMENT_PREFIX_PATH and PYTHONPATH"
    )


def _paths(environment: Environment, variable: str) -> list[Path]:
    """The folders in a variable, each once, links followed."""
    parts: Iterable[str] = filter(None, environment.get(variable, "").split(os.pathsep))
    return list(dict.fromkeys(Path(part).resolve() for part in parts))


SETTINGS = (
    Setting("AMENT_PREFIX_PATH", _mixture),
    Setting("RMW_IMPLEMENTATION", _middleware),
    Setting("ROS_DOMAIN_ID", _domain),
    Setting("ROS_DOMAIN_ID", _ephemeral_ports, stops=False),
    Setting("ROS_AUTOMATIC_DISCOVERY_RANGE", _discovery_range),
    Setting("ROS_LOCALHOST_ONLY", _localhost_only),
    Setting("ROS_LOCALHOST_ONLY", _localhost_wins, stops=False),
    Setting("ROS_STATIC_PEERS", _static_peers),
    Setting("ROS_DISCOVERY_SERVER", _discovery_server),
    Setting("ROS_DISCOVERY_SERVER", _discovery_server_needed, stops=False),
    Setting("FASTRTPS_DEFAULT_PROFILES_FILE", _profiles("FASTRTPS_DEFAULT_PROFILES_FILE")),
    Setting("FASTDDS_DEFAULT_PROFILES_FILE", _profiles("FASTDDS_DEFAULT_PROFILES_FILE")),
    Setting("FASTDDS_BUILTIN_TRANSPORTS", _transports),
    Setting("ROS_SECURITY_KEYSTORE", _security),
    Setting("ROS_SECURITY_ENABLE", _security_words, stops=False),
    Setting("ROS_LOG_DIR", _log_folder),
    Setting("RCUTILS_COLORIZED_OUTPUT", _one_or_zero("RCUTILS_COLORIZED_OUTPUT")),
    Setting("RCUTILS_LOGGING_USE_STDOUT", _one_or_zero("RCUTILS_LOGGING_USE_STDOUT")),
    Setting("RCUTILS_LOGGING_BUFFERED_STREAM", _one_or_zero("RCUTILS_LOGGING_BUFFERED_STREAM")),
)
"""Nodes read no other setting from the environment."""
