"""Result file of a benchmark: its figures with settings, commit and machine."""

import json
from pathlib import Path
from typing import Any

from dexgrasp_learner.storage.provenance import provenance


def write_result(
    folder: Path, name: str, settings: dict[str, Any], figures: dict[str, Any]
) -> Path:
    """Writes `<name>.json` into `folder`, the figures at its top level."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {**figures, "settings": settings, "provenance": provenance()}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
