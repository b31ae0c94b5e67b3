"""How many environments fit into the memory of a host's devices, predicted from costs."""
