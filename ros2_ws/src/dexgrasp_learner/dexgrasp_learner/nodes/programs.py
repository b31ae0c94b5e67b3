"""The console scripts of this package's nodes."""

from dexgrasp_sim.nodes.program import node_program

learner_node = node_program("dexgrasp_learner.nodes.learner_node")
