"""Scripted policies that know where the object is: the proof that the task is solvable."""

from dexgrasp_sim.tasks.grasp.scripted.script import Script, make_script
from dexgrasp_sim.tasks.grasp.scripted.velocity_script import ScriptedPolicy

__all__ = ["Script", "ScriptedPolicy", "make_script"]
