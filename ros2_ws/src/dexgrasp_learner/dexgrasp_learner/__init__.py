import dexgrasp_sim  # noqa: F401  # sets the environment before torch is imported
