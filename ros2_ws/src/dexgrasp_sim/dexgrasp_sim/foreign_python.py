"""Child processes that run another Python interpreter than this one."""

import os
import sys
from pathlib import Path

_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH")
"""Variables that would make another interpreter load this one's libraries and crash."""


def environment_for(python: str) -> dict[str, str]:
    """Environment variables of a child process, which finds this package.

    Args:
        python: Interpreter; "" is this one, which inherits all variables. Another one must not
            find the libraries or the ROS installation of this one.
    """
    environment = dict(os.environ)
    if python and Path(python).absolute() != Path(sys.executable):
        ros = [name for name in environment if name.startswith(("ROS_", "RMW_"))]
        for name in (*_VARIABLES, *ros):
            environment.pop(name, None)
    root = Path(__file__).parents[1]
    if not (root / "torch").exists():  # a source tree or workspace, no shared site-packages
        paths = [str(root), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment
