"""Faults of files and of processes for `dexgrasp bench faults`; each is a command that is run."""
