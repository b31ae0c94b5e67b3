"""Makes a run folder agree with the checkpoint and the settings that a run goes on with."""

from pathlib import Path

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.console import shortened, tell, warn
from dexgrasp_learner.storage.history import config_changes, record_start
from dexgrasp_learner.storage.set_aside import set_aside_later


def settle(folder: Path, saved: RunConfig, config: RunConfig, iteration: int) -> None:
    """Sets later checkpoints aside, records the settings, and says in a line each what is new.

    Args:
        folder: The run folder, which this process owns.
        saved: Settings in the checkpoint.
        config: Settings with which the run goes on; the next resume begins with them.
        iteration: Iterations done in the checkpoint.

    Raises:
        OSError: The folder cannot be written.
    """
    if aside := set_aside_later(folder, iteration):
        tell(f"back to iteration {iteration}; what came later is now in {aside}")
    changes = config_changes(saved, config)
    if changes:
        words = [f"{key} = {new} (was {old})" for key, (old, new) in changes.items()]
        tell(f"from iteration {iteration} on with {shortened(', '.join(words))}")
    record_start(folder, config, iteration, changes)
    planned = config.training.iterations
    if iteration >= planned:
        warn(
            f"nothing left to do: {iteration} iterations are done and training.iterations is "
            f"{planned}; to go on, resume with --set training.iterations={2 * max(iteration, 1)}"
        )
