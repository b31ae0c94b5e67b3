"""A policy as LEAPP describes one, for runtimes that read that format.

LEAPP (Lightweight Export Annotations for Policy Pipelines, NVIDIA) is an ONNX file with a YAML
file beside it; its version 0.7.2 (configuration 1.3) was read for this. `leapp.InferenceManager`
loads and runs such a description. It covers tensors, their elements and the memory. It has no
words for how `proprio` is computed and what the action means: that is in `manifest.json`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from dexgrasp_sim.specs import TensorSpec, Term
from dexgrasp_sim.version import version
from dexgrasp_sim.yaml_file import as_yaml

LEAPP_FILE = "leapp.yaml"
_CONFIG_VERSION = "1.3"
_NODE = "policy"
_KINDS = {"depth": "state/camera/depth", "stereo_rgb": "state/camera/image"}
"""Of observation groups that LEAPP or Isaac ROS Deploy have a word for; others keep their own."""


def leapp_description(
    policy: Path,
    groups: Sequence[TensorSpec],
    action_names: Sequence[str],
    auxiliary: TensorSpec | None,
    memory_names: tuple[str, str] | None,
    joint_names: Sequence[str],
    control_hz: float,
) -> str:
    """The YAML text for an exported policy.

    Args:
        policy: The ONNX file; the description names it relative to its own folder.
        groups: Observation groups that the policy reads.
        action_names: Elements of the action.
        auxiliary: What it predicts beside, if anything.
        memory_names: Names of its memory as input and as output, None without memory.
        joint_names: Order of terms that have an element for each joint.
        control_hz: Rate of the policy.
    """
    graph = onnx.load(policy, load_external_data=False).graph
    extra: dict[str, dict[str, Any]] = {
        spec.name: _described(spec, joint_names) for spec in groups
    }
    extra["action"] = {"element_names": [list(action_names)], "unit": "-1 to 1"}
    if auxiliary is not None:
        extra["auxiliary"] = _described(auxiliary, joint_names)
    memory_in, memory_out = memory_names or ("", "")
    outputs = [node.name for node in graph.output]
    content = policy.read_bytes()
    node = {
        "inputs": [_tensor(value, extra) for value in graph.input],
        "outputs": [_tensor(value, extra) for value in graph.output],
        "parameters": {
            "model_path": policy.name,
            "sha256sum": hashlib.sha256(content).hexdigest(),
            "md5sum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "backend": "onnx",
        },
    }
    feedback = {f"{_NODE}/{memory_out}": [f"{_NODE}/{memory_in}"]} if memory_names else {}
    pipeline = {
        "data_flow": {},
        "feedback_flow": feedback,
        "inputs": {_NODE: [spec.name for spec in groups]},
        "outputs": {_NODE: [name for name in outputs if name != memory_out]},
        "configs": {"frequency": control_hz},
    }
    system = {"leapp config version": _CONFIG_VERSION, "exported by": f"dexgrasp {version()}"}
    return as_yaml({"models": {_NODE: node}, "pipeline": pipeline, "system information": system})


def _tensor(value: onnx.ValueInfoProto, extra: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        "shape": [size.dim_value for size in kind.shape.dim],
        "type": "tensor",
        **extra.get(value.name, {}),
    }


def _described(spec: TensorSpec, joint_names: Sequence[str]) -> dict[str, Any]:
    """Kind, unit and the names of the elements of a group."""
    described: dict[str, Any] = {"kind": _KINDS.get(spec.name, f"dexgrasp/{spec.name}")}
    if spec.unit:
        described["unit"] = spec.unit
    if spec.terms:
        names = [f"{term.name}{of}" for term in spec.terms for of in _elements(term, joint_names)]
        described["element_names"] = [names]
    return described


def _elements(term: Term, joint_names: Sequence[str]) -> list[str]:
    if term.size == 1:
        return [""]
    if term.size == len(joint_names):
        return [f"/{name}" for name in joint_names]
    return [f"/{index}" for index in range(term.size)]
