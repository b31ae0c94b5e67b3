"""What is around the robot of a task."""

from dexgrasp_deploy.control.motion.clearance import Cell
from dexgrasp_deploy.control.safety import SafetyConfig, SafetyFilter
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.control.fabric.obstacles import Obstacle
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig


def obstacles_of(task: GraspConfig) -> tuple[Obstacle, ...]:
    """The table first, then what the policy's fabric keeps off, if it acts through one."""
    around = task.action.obstacles if isinstance(task.action, FabricConfig) else ()
    return (task.table_obstacle, *around)


def safety_filter(task: GraspConfig, robot: Robot, config: SafetyConfig) -> SafetyFilter:
    """The filter of a task's commands.

    Raises:
        ConfigError: A value does not fit the robot.
    """
    try:
        cell = Cell(obstacles_of(task), config.workspace())
        return SafetyFilter(robot, config, task.command_dt_s, cell)
    except ValueError as error:
        raise ConfigError(f"safety: {error}") from None
