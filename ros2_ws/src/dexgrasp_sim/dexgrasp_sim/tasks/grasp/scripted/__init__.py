"""Scripted policies that read the object's pose; they show that the task can be solved."""

from dexgrasp_sim.tasks.grasp.scripted.script import Script, make_script
from dexgrasp_sim.tasks.grasp.scripted.velocity_script import ScriptedPolicy

__all__ = ["Script", "ScriptedPolicy", "make_script"]
