"""Which checkpoints a folder holds, which is the newest, and whether its files are whole.

A checkpoint is sealed by `checksums.json`, the size and the SHA-256 of every other file of it.
One without, as earlier versions wrote it, counts as whole if its files can be opened.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open

from dexgrasp_learner.console import shortened
from dexgrasp_sim.config import ConfigError

STATE, ACTOR, TRAINING = "state.json", "actor.safetensors", "training.pt"
FILES = (STATE, ACTOR, TRAINING)
"""What every checkpoint holds; those of an orderly save hold the simulators' states too."""
CHECKSUMS = "checksums.json"
CHECKPOINTS, LATEST = "checkpoints", "latest"

_NAME = re.compile(r"iteration_(\d{6,})")


class DamagedCheckpoint(ConfigError):
    """A file of a checkpoint is missing, damaged, or of a version that does not fit this one."""


def checkpoint_name(iteration: int) -> str:
    """Name of the folder of a checkpoint."""
    return f"iteration_{iteration:06d}"


def iteration_of(checkpoint: Path) -> int | None:
    """The iteration in a checkpoint's name; None if it has another name."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else None


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run folder or a `checkpoints` folder, newest first, whole or not.

    Their numbers decide. `latest` is for people: a copy may have lost it, or made a folder of the
    link; then it counts only where there is nothing else.
    """
    for parent in (folder / CHECKPOINTS, folder):
        numbered = [path for path in _subfolders(parent) if iteration_of(path) is not None]
        if numbered:
            return sorted(numbered, key=lambda path: iteration_of(path) or 0, reverse=True)
        if (parent / LATEST / STATE).is_file():
            return [parent / LATEST]
    return []


def find_checkpoint(path: Path, files: Collection[str] = ()) -> Path:
    """The checkpoint folder meant by a run folder, a `checkpoints` folder or a checkpoint.

    In a folder of checkpoints it is the one with the highest number. A damaged one is refused
    instead of passed over, so that nobody goes on from an older state without noticing.

    Args:
        path: Of one of these folders.
        files: The files that must be whole; none given: all files of the checkpoint.

    Raises:
        ConfigError: There is none.
        DamagedCheckpoint: It is not whole; the message names an older one that is.
    """
    is_checkpoint = iteration_of(path.resolve()) is not None or (path / STATE).is_file()
    found = [path] if is_checkpoint and path.is_dir() else list_checkpoints(path)
    if not found:
        raise ConfigError(f"{path}: no checkpoint there; give a run folder or a checkpoint folder")
    checkpoint = found[0].resolve()
    if fault := fault_in(checkpoint, files):
        raise DamagedCheckpoint(f"{checkpoint}/{fault}; {_way_out(checkpoint, files)}")
    return checkpoint


def run_folder_of(path: Path) -> Path:
    """The run folder that a path of it, of its `checkpoints` or of a checkpoint belongs to."""
    if (path / "config.yaml").is_file():
        return path
    resolved = path.resolve()
    for folder in (resolved, resolved.parent):
        if folder.name == CHECKPOINTS:
            return folder.parent
    return path


def seal(checkpoint: Path) -> None:
    """Writes `checksums.json` over all files that are there; the last step of saving."""
    sums_file = checkpoint / CHECKSUMS
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != sums_file)
    sums = {
        str(path.relative_to(checkpoint)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in files
    }
    sums_file.write_text(json.dumps(sums, indent=1) + "\n")


def fault_in(checkpoint: Path, files: Collection[str] = ()) -> str:
    """What is wrong with a checkpoint, as `<file>: <fault>`; "" if it is whole.

    Args:
        checkpoint: Its folder.
        files: See `find_checkpoint`.
    """
    if (checkpoint / CHECKSUMS).exists():
        try:
            sums = json.loads((checkpoint / CHECKSUMS).read_text())
            listed = files or dict.fromkeys((*FILES, *sums))
            faults = ((name, _difference(checkpoint / name, sums[name])) for name in listed)
            return next((f"{name}: {fault}" for name, fault in faults if fault), "")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"{CHECKSUMS}: is damaged"
    saved = sorted(checkpoint.glob("simulators/*.safetensors"))
    listed = files or (*FILES, *(str(path.relative_to(checkpoint)) for path in saved))
    faults = ((name, _parser_fault(checkpoint / name)) for name in listed)
    return next((f"{name}: {fault}" for name, fault in faults if fault), "")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """What goes wrong in the body is a fault of this file of a checkpoint, said in one line.

    Raises:
        DamagedCheckpoint: The body raised something else than a ConfigError.
    """
    try:
        yield
    except ConfigError:
        raise
    except KeyError as error:
        raise DamagedCheckpoint(
            f"{file}: lacks {error}, which this version reads; {writer_of(file.parent)}"
        ) from None
    except Exception as error:  # parsers raise all kinds of errors
        reason = shortened(str(error)) or type(error).__name__
        raise DamagedCheckpoint(
            f"{file}: cannot be read ({reason}); {_way_out(file.parent)}"
        ) from None


def writer_of(checkpoint: Path) -> str:
    """Clause for messages: what to do with a checkpoint of another version of this program."""
    return (
        f"run.json and history.jsonl in {run_folder_of(checkpoint)} name the commit that wrote "
        "it; use that, or start a new run"
    )


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's contents; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file in one step; after an OSError, as on a full disk, the old one is there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _way_out(checkpoint: Path, files: Collection[str] = ()) -> str:
    """What to do about a damaged checkpoint: the newest older one that is whole, if any."""
    own = iteration_of(checkpoint)
    siblings = list_checkpoints(checkpoint.parent) if own is not None else []
    older = [path for path in siblings if (iteration_of(path) or 0) < (own or 0)]
    whole = next((path for path in older if not fault_in(path, files)), None)
    if whole is None:
        return "there is no older whole checkpoint beside it; copy it again or start a new run"
    return f"copy it again, or go back to an older one that is whole: {whole}"


def _difference(file: Path, expected: dict[str, Any]) -> str:
    """How a file differs from its checksum; "" if it does not."""
    if not file.is_file():
        return "is missing"
    size, wanted = file.stat().st_size, expected["bytes"]
    if size < wanted:
        return f"is truncated ({size} of {wanted} bytes)"
    try:
        is_same = size == wanted and sha256(file) == expected["sha256"]
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if is_same else "was changed or damaged after it was written"


def _parser_fault(file: Path) -> str:
    """Whether a file without a checksum can be opened at all; "" if it can."""
    if not file.is_file():
        return "is missing"
    try:
        if file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass
        elif not zipfile.is_zipfile(file):
            return "is damaged or truncated"
    except Exception as error:  # safetensors has errors of its own
        return f"is damaged or truncated ({shortened(str(error))})"
    return ""


def _subfolders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []
