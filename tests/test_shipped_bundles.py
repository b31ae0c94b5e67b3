"""The released policies are whole, measured, small, and what the README says of them."""

import re
from pathlib import Path

import pytest

from dexgrasp_learner.storage.bundle import check_documents, load_bundle, read_manifest

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/manifest.json"))
SENSES = {
    "proprio": "joints",
    "state": "true object pose",
    "depth": "depth",
    "stereo_rgb": "stereo",
}
LEAST_EPISODES, LARGEST_BYTES = 400, 10_000_000


def readme_rows(folder):
    """A row for each set of objects that a bundle was measured with."""
    manifest = read_manifest(folder)
    senses = [
        SENSES[spec.name] + (f" {spec.shape[-1]}x{spec.shape[-2]}" if len(spec.shape) > 1 else "")
        for spec in manifest.groups
    ]
    for figures in manifest.evaluations:
        swapped, objects = figures["swapped_images"], figures["object_set"] or "own"
        yield (
            f"| [`{folder.name}`](bundles/{folder.name}/MODEL_CARD.md) | {', '.join(senses)} | "
            f"`{manifest.training['name']}`, {figures['objects']} objects ({objects}) | "
            f"**{figures['success_rate']:.3f}** ({figures['success_low']:.3f} to "
            f"{figures['success_high']:.3f}) of {figures['episodes']} | "
            + (f"{swapped['success_rate']:.3f} |" if swapped else "sees none |")
        )


def test_the_policies_that_the_demo_and_the_readme_name_are_there():
    assert {"depth_teacher", "state_teacher"} <= {folder.name for folder in BUNDLES}


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_released_policy_is_whole_and_small(folder):
    manifest = load_bundle(folder).manifest
    check_documents(folder, manifest)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"manifest.json", *manifest.files}
    assert "learning_curve.png" in found
    assert sum((folder / name).stat().st_size for name in found) < LARGEST_BYTES


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_released_policy_says_how_it_was_trained_and_what_it_can_do(folder):
    manifest = read_manifest(folder)
    origin = manifest.origin
    assert origin.algorithm and origin.env_steps and origin.minutes and origin.cpu
    assert all(one["episodes"] >= LEAST_EPISODES for one in manifest.evaluations)
    assert manifest.evaluations and not manifest.evaluations[0]["object_set"]
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for figures in manifest.evaluations:
        assert f"**{figures['success_rate']:.3f}**" in card
    assert "/home/" not in card and "/tmp/" not in card and "/work/" not in card


def test_the_readme_has_the_figures_of_the_manifests():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`\w+`\]\(bundles/.*$", text, flags=re.MULTILINE)
    expected = [row for folder in BUNDLES for row in readme_rows(folder)]
    assert rows == expected, "the table must be:\n" + "\n".join(expected)
