"""What a benchmark writes: figures with the commit, the settings and the machine they hold for."""

import json
from pathlib import Path
from typing import Any

from dexgrasp_learner.storage.run_folder import provenance


def write_result(
    folder: Path, name: str, settings: dict[str, Any], figures: dict[str, Any]
) -> Path:
    """Writes `<name>.json` into `folder`, the figures at its top level."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {**figures, "settings": settings, "provenance": provenance()}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
