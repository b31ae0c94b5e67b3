"""The report of evaluations: one HTML page that loads nothing from elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexgrasp_learner.evaluation.curves import (
    as_data_url,
    health_curves,
    image_data_url,
    learning_curve,
)
from dexgrasp_learner.evaluation.figures import Assessment
from dexgrasp_learner.evaluation.pages import page_templates, success_in_words
from dexgrasp_learner.storage.bundle import CURVE_FILE, read_manifest
from dexgrasp_learner.storage.checkpoint_files import run_folder_of
from dexgrasp_learner.storage.origin import METRICS_FILE, read_origin
from dexgrasp_learner.storage.provenance import provenance
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.episodes import SuccessConfig


def write_report(path: Path, assessments: Sequence[Assessment], success: SuccessConfig) -> None:
    """Writes the page.

    Args:
        path: Of the HTML file; its folder is made.
        assessments: At least one, of the same seed.
        success: The rule of the first; others may differ only where tasks differ.

    Raises:
        ConfigError: It cannot be written.
    """
    sources = dict.fromkeys(item.source for item in assessments)
    template = page_templates().get_template("evaluation.html")
    page = template.render(
        assessments=assessments,
        seed=assessments[0].own.seed,
        success_rule=success_in_words(success),
        runs=[run for run in map(_training, sources) if run],
        provenance=provenance(),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--report {path}: cannot be written ({error.strerror}); give another file"
        ) from None


def _training(source: str) -> dict[str, Any] | None:
    """The curves of a run or of a bundle; None where the policy comes from something else."""
    if Path(source, CURVE_FILE).is_file():
        curve = image_data_url(Path(source, CURVE_FILE).read_bytes())
        return {"origin": read_manifest(Path(source)).origin, "curve": curve, "health": None}
    if not run_folder_of(Path(source)).joinpath(METRICS_FILE).is_file():
        return None
    origin, records = read_origin(Path(source))
    if not records:
        return None
    health = health_curves(records)
    return {
        "origin": origin,
        "curve": as_data_url(learning_curve(records)),
        "health": as_data_url(health) if health else None,
    }
