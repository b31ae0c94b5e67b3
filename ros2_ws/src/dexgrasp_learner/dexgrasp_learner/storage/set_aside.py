"""Going back to an older checkpoint of a run without losing the later ones."""

import shutil
from pathlib import Path

from dexgrasp_learner.storage.checkpoint_files import CHECKPOINTS, iteration_of, list_checkpoints
from dexgrasp_learner.storage.owner import LOCK
from dexgrasp_learner.storage.run_folder import make_folder


def set_aside_later(folder: Path, iteration: int) -> Path | None:
    """Moves the checkpoints after an iteration into a run folder of their own inside this one.

    It gets copies of the run's records too, so that `evaluate`, `export` and `train --resume`
    take it as any other run folder.

    Args:
        folder: A run folder that this process owns.
        iteration: The one to go on from.

    Returns:
        The new folder, `set_aside_after_<iteration>`; None if there are no later checkpoints.

    Raises:
        OSError: It cannot be written.
    """
    later = [path for path in list_checkpoints(folder) if (iteration_of(path) or 0) > iteration]
    if not later:
        return None
    aside = make_folder(folder, f"set_aside_after_{iteration:06d}")
    try:
        (aside / CHECKPOINTS).mkdir()
        for file in folder.iterdir():
            if file.is_file() and file.name != LOCK:
                shutil.copy2(file, aside)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for checkpoint in later:
        checkpoint.rename(aside / CHECKPOINTS / checkpoint.name)
    return aside
