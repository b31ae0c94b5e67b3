"""The console scripts of this package's nodes."""

from dexgrasp_sim.nodes.program import node_program

sim_worker_node = node_program("dexgrasp_sim.nodes.sim_worker_node")
