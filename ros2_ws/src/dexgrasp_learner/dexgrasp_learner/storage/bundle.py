"""A policy bundle: everything that is needed to run a trained policy and to verify it.

    <bundle>/
        manifest.json      what the policy sees, what its action means, where it comes from
        policy.onnx        one control step of one robot: observations and memory in,
                           action mean in [-1, 1], memory and auxiliary prediction out
        test_vectors.npz   consecutive steps of recorded observations and the learner's actions
        meshes/            files of the objects that are meshes; other objects the package makes
        MODEL_CARD.md      how it was trained and what it can do, for people
        learning_curve.png of the card
        leapp.yaml         the policy in the format of another runtime, see leapp.py

A checkpoint resumes training; a bundle deploys. The files hold no pickle.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from dexgrasp_learner.console import shortened
from dexgrasp_learner.storage.checkpoint_files import sha256
from dexgrasp_learner.storage.leapp import LEAPP_FILE
from dexgrasp_learner.storage.origin import Origin
from dexgrasp_sim.config import STRICT, ConfigError, parse_config, to_dict
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.config import GraspConfig

SCHEMA_VERSION = 2
MANIFEST_FILE = "manifest.json"
POLICY_FILE = "policy.onnx"
VECTORS_FILE = "test_vectors.npz"
CARD_FILE = "MODEL_CARD.md"
CURVE_FILE = "learning_curve.png"
MESHES = "meshes"
FOR_PEOPLE = (CARD_FILE, CURVE_FILE, LEAPP_FILE)
"""Without these a policy runs, too."""
MIN_TEST_STEPS = 16

MEMORY_IN, MEMORY_OUT, ACTION, AUXILIARY = "memory", "next_memory", "action", "auxiliary"
"""Names of the graph's inputs and outputs besides the observation groups."""

_TOLERANCE = 1e-4
"""Largest difference from the learner's action on any CPU; float32 kernels differ by some 1e-6."""


class BundleError(ConfigError):
    """A folder is not a usable bundle: incomplete, changed, outdated or not reproducible."""


@dataclass(frozen=True, config=STRICT)
class RobotIdentity:
    """The robot that the policy was trained on.

    Attributes:
        name: Robot name of the URDF.
        urdf_sha256: Hash of the URDF file.
        joint_names: Joint order of every joint vector in the bundle.
        start_position_rad: Where episodes start, in that order.
    """

    name: str
    urdf_sha256: str
    joint_names: tuple[str, ...]
    start_position_rad: tuple[float, ...]


@dataclass(frozen=True, config=STRICT)
class ObjectSources:
    """Where the geometry of the task's objects comes from.

    Attributes:
        count: How many objects.
        package_set: Name of the set in `dexgrasp_sim/objects/sets.py` that makes them, the same on
            every machine; None if the task lists its objects.
        meshes: Mesh file in the bundle of each object that has one, by object name.
    """

    count: int
    package_set: str | None
    meshes: dict[str, str]

    @property
    def in_words(self) -> str:
        """How many objects, and which files they need."""
        if self.package_set:
            made = f"the set `{self.package_set}`, which the package makes; no file is needed"
        elif self.meshes:
            made = f"{len(self.meshes)} of them from files under `{MESHES}/`"
        else:
            made = "made from their sizes in `task.objects`; no file is needed"
        return f"{self.count}, {made}"


@dataclass(frozen=True, config=STRICT)
class BundleManifest:
    """Content of `manifest.json`.

    Attributes:
        schema_version: Version of this layout.
        groups: Observation groups that the policy reads, with their terms and units.
        action_names: Elements of the action, each in [-1, 1]; `task.action` says what they mean.
        memory_shape: Recurrent state of one robot, [2, 1, H]; H = 0 without memory.
        auxiliary: The group that the policy predicts beside its action, None for none.
        robot: The robot.
        task: The training task: control rate, episode length, meaning of the action, camera with
            its range and pose; and all that the simulated twin needs. Its difficulty, on which
            the fabric's damping depends, is the one that the policy was last trained at.
        training: The rest of the training run's configuration.
        origin: How it was trained.
        objects: What the objects of `task` are made from.
        evaluations: What was measured with this policy, as `dexgrasp evaluate --json` gives it.
        files: SHA-256 of every other file of the bundle.
        bundle_id: 16 hexadecimal characters of the hash over all of the above.
    """

    schema_version: int
    groups: tuple[TensorSpec, ...]
    action_names: tuple[str, ...]
    memory_shape: tuple[int, int, int]
    auxiliary: TensorSpec | None
    robot: RobotIdentity
    task: GraspConfig
    training: dict[str, Any]
    origin: Origin
    objects: ObjectSources
    evaluations: tuple[dict[str, Any], ...]
    files: dict[str, str]
    bundle_id: str = ""

    @property
    def image(self) -> TensorSpec | None:
        """The image group that the policy reads: `depth`, `stereo_rgb` or None."""
        return next((spec for spec in self.groups if len(spec.shape) > 1), None)


@plain_dataclass(frozen=True)
class Bundle:
    """A verified bundle, ready to run."""

    manifest: BundleManifest
    session: onnxruntime.InferenceSession


def seal_manifest(folder: Path, values: dict[str, Any]) -> BundleManifest:
    """Writes `manifest.json` beside the other files, which must be finished.

    Args:
        folder: Bundle folder.
        values: Fields of BundleManifest but `schema_version`, `files` and `bundle_id`. Objects
            whose mesh is in the folder name it relative to that in the file.

    Returns:
        The manifest as written.
    """
    others = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in others]
    hashes = {name: sha256(folder / name) for name in names if name != MANIFEST_FILE}
    draft = BundleManifest(schema_version=SCHEMA_VERSION, files=hashes, **values)
    content = to_dict(draft)
    for item in _mesh_objects(content):
        path = Path(item["path"])
        if path.is_relative_to(folder.resolve()):
            item["path"] = path.relative_to(folder.resolve()).as_posix()
    content["bundle_id"] = _bundle_id(content)
    (folder / MANIFEST_FILE).write_text(json.dumps(content, indent=2) + "\n")
    return _parsed(content, folder)


def read_manifest(folder: Path) -> BundleManifest:
    """Reads and checks the manifest and the hash of every file that a robot needs; runs nothing.

    Raises:
        BundleError: A file is missing, changed or of another schema version.
    """
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text())
    except OSError as error:
        raise BundleError(
            f"{folder}: no bundle here ({error.strerror}); make one with `dexgrasp export`"
        ) from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST_FILE}: not JSON ({error}); export again") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{folder}: bundle schema version {version}, this program reads {SCHEMA_VERSION}; "
            "export the checkpoint again"
        )
    if not content.get("bundle_id"):
        raise BundleError(f"{folder / MANIFEST_FILE}: has no `bundle_id`; export again")
    if content["bundle_id"] != _bundle_id(content):
        raise BundleError(f"{folder / MANIFEST_FILE}: was changed after export; export again")
    try:
        manifest = _parsed(content, folder)
    except ConfigError as error:
        raise BundleError(f"{error}; export again with this version") from None
    needed = [name for name in manifest.files if name not in FOR_PEOPLE]
    for name in dict.fromkeys((POLICY_FILE, VECTORS_FILE, *needed)):
        _check_file(folder / name, manifest.files.get(name, ""))
    return manifest


def check_documents(folder: Path, manifest: BundleManifest) -> None:
    """Checks the files of a bundle that only people and other runtimes read.

    Raises:
        BundleError: One is missing or changed; `read_manifest` checks all others.
    """
    for name in FOR_PEOPLE:
        if name in (CARD_FILE, LEAPP_FILE) or name in manifest.files:
            _check_file(folder / name, manifest.files.get(name, ""))


def load_bundle(folder: str | Path) -> Bundle:
    """Loads a bundle and checks that it gives the same outputs here as in the learner.

    Raises:
        BundleError: As `read_manifest`; or the graph does not fit the manifest; or an output on
            the test vectors differs by more than 1e-4.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    session = _open_session(path / POLICY_FILE)
    _check_signature(path, manifest, session)
    bundle = Bundle(manifest, session)
    vectors = read_vectors(path / VECTORS_FILE)
    try:
        difference = worst_difference(bundle, vectors)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    except Exception as error:  # the runtime's own, and arrays that do not fit together
        raise BundleError(
            f"{path}: the policy does not run on its test vectors ({_one_line(error)}); export "
            "again"
        ) from None
    if not difference <= _TOLERANCE:
        raise BundleError(
            f"{path}: outputs differ from the learner's by {difference:.2e} on the test vectors "
            f"(allowed {_TOLERANCE:.0e}); export again with this version of onnxruntime "
            f"({onnxruntime.__version__})"
        )
    return bundle


def run_step(
    bundle: Bundle, observations: Mapping[str, NDArray[Any]], memory: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """One control step.

    Args:
        bundle: The policy.
        observations: One array per group of the manifest, of the shape and dtype of its spec.
        memory: [2, 1, H] float32.

    Returns:
        `action` [A] in [-1, 1], `next_memory` [2, 1, H], and `auxiliary` [K] where the policy
        predicts one; all float32.
    """
    feed = {spec.name: observations[spec.name][np.newaxis] for spec in bundle.manifest.groups}
    if memory.size:
        feed[MEMORY_IN] = memory
    names = [output.name for output in bundle.session.get_outputs()]
    arrays: list[Any] = list(bundle.session.run(names, feed))
    values = dict(zip(names, arrays, strict=True))
    result = {name: value[0] for name, value in values.items() if name != MEMORY_OUT}
    return {**result, MEMORY_OUT: values.get(MEMORY_OUT, memory)}


def read_vectors(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the recorded steps.

    Returns:
        Observation groups [T, *shape], `memory` [2, 1, H] before the first step, and the
        learner's `action` [T, A] and `auxiliary` [T, K].

    Raises:
        BundleError: The file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as vectors:
            return {name: vectors[name] for name in vectors.files}
    except Exception as error:  # of zip, zlib and numpy
        raise BundleError(f"{path}: cannot be read ({_one_line(error)}); export again") from None


def worst_difference(bundle: Bundle, vectors: Mapping[str, NDArray[Any]]) -> float:
    """Largest difference from the learner over all steps, memory carried from step to step.

    Raises:
        BundleError: There are fewer than 16 steps, or an array is missing.
    """
    wanted = [spec.name for spec in bundle.manifest.groups] + [MEMORY_IN, ACTION]
    if missing := [name for name in wanted if name not in vectors]:
        raise BundleError(f"test vectors lack {', '.join(missing)}; export again")
    steps = len(vectors[ACTION])
    if steps < MIN_TEST_STEPS:
        raise BundleError(
            f"{steps} test steps, at least {MIN_TEST_STEPS} are needed; export again"
        )
    memory, worst = vectors[MEMORY_IN], 0.0
    for step in range(steps):
        observations = {spec.name: vectors[spec.name][step] for spec in bundle.manifest.groups}
        outputs = run_step(bundle, observations, memory)
        memory = outputs[MEMORY_OUT]
        for name in (ACTION, AUXILIARY):
            if name in vectors:
                difference = np.abs(outputs[name] - vectors[name][step]).max()
                worst = max(worst, float(difference)) if np.isfinite(difference) else np.inf
    return worst


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread: the networks are small, and a control loop shares its cores with drivers.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is in the error
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no public base class
        raise BundleError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load it ({_one_line(error)}); "
            "export again with this version"
        ) from None


def _check_signature(
    folder: Path, manifest: BundleManifest, session: onnxruntime.InferenceSession
) -> None:
    expected = {spec.name: [1, *spec.shape] for spec in manifest.groups}
    if manifest.memory_shape[2]:
        expected[MEMORY_IN] = list(manifest.memory_shape)
    found = {node.name: list(node.shape) for node in session.get_inputs()}
    if found != expected:
        raise BundleError(
            f"{folder}: the policy's inputs {found} are not those of the manifest {expected}; "
            "export again"
        )
    actions = {node.name: list(node.shape) for node in session.get_outputs()}.get(ACTION)
    if actions != [1, len(manifest.action_names)]:
        raise BundleError(
            f"{folder}: action output {actions} is not [1, {len(manifest.action_names)}]; "
            "export again"
        )


def _parsed(content: Mapping[str, Any], folder: Path) -> BundleManifest:
    """The manifest with mesh files where they are now; ConfigError for wrong values."""
    placed = json.loads(json.dumps(content))
    for item in _mesh_objects(placed):
        item["path"] = str(folder.resolve() / item["path"])
    return parse_config(BundleManifest, placed, source=str(folder / MANIFEST_FILE))


def _mesh_objects(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects that name a mesh file, in a manifest that may be anything."""
    task = content.get("task")
    objects = task.get("objects") if isinstance(task, dict) else None
    items = objects if isinstance(objects, list) else []
    return [item for item in items if isinstance(item, dict) and isinstance(item.get("path"), str)]


def _bundle_id(content: Mapping[str, Any]) -> str:
    hashed = {key: value for key, value in content.items() if key != "bundle_id"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path.parent}: {path.name} is missing; copy the whole folder")
    try:
        found = sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None
    if found != expected:
        raise BundleError(f"{path}: was changed after export; export again")


def _one_line(error: Exception) -> str:
    return shortened(str(error)) or type(error).__name__
