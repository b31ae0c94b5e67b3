"""Faults of a deployed robot: of its streams, devices, processes, operators and things."""
