"""Whether a hand-eye calibration may be used."""

from typing import Any

import numpy as np

from dexgrasp_deploy.calibration.hand_eye import LEAST_POSES, LEAST_SPREAD_DEG, HandEyeResult
from dexgrasp_deploy.calibration.quality import Check, Verdict
from dexgrasp_deploy.calibration.transforms import quaternion_wxyz

GOOD_POSES, GOOD_SPREAD_DEG = 15, 25.0
"""Fifteen poses spread over 25 degrees give a median error of 1.1 mm and 0.10 degrees in
simulation; six poses over 15 degrees 2.7 mm."""


def judge(result: HandEyeResult) -> Verdict:
    """Every quantity of a result against its limits.

    A grasp bears some 5 mm of error of the camera, so that 2 mm of uncertainty is good.
    """
    still = "keep board and camera firm on their mounts, and let the arm stand still"
    more = "record more poses, turned more"
    left_out_mm = 1e3 * float(np.linalg.norm(result.leave_one_out[:, 3:], axis=1).max())
    rejected = len(result.rejected) / (len(result.rejected) + len(result.used))
    scale = 100 * abs(result.board_scale - 1)
    return Verdict(
        (
            Check("poses", len(result.used), GOOD_POSES, LEAST_POSES, "record more"),
            Check(
                "spread about a second axis in degrees",
                float(result.spread_deg[1]),
                GOOD_SPREAD_DEG,
                LEAST_SPREAD_DEG,
                "turn the hand more, about two axes",
            ),
            Check("error at the board in mm", result.rms_mm, 1.0, 3.0, still),
            Check("uncertainty of the position in mm", result.position_std_mm, 2.0, 5.0, more),
            Check(
                "uncertainty of the rotation in degrees",
                result.rotation_std_deg,
                0.2,
                0.5,
                more,
            ),
            Check("change in mm when one pose is left out", left_out_mm, 2.0, 5.0, more),
            Check("share of poses rejected", rejected, 0.2, 0.34, still),
            Check(
                "error of the board's size in %",
                scale,
                1.0,
                3.0,
                "measure the printed squares and check the intrinsics",
            ),
            Check(
                "error of the focal length in %",
                100 * abs(result.focal_scale - 1),
                1.5,
                3.0,
                "calibrate the intrinsics at the resolution and focus of these images",
            ),
        )
    )


def to_dict(result: HandEyeResult, verdict: Verdict) -> dict[str, Any]:
    """For the report."""
    return {
        "kind": "hand-eye",
        "setup": result.setup.value,
        **verdict.to_dict(),
        "camera": _pose(result.camera),
        "board": _pose(result.board),
        "poses": len(result.used),
        "rms_px": result.rms_px,
        "rms_mm": result.rms_mm,
        "position_std_mm": result.position_std_mm,
        "rotation_std_deg": result.rotation_std_deg,
        "covariance_rad_m": result.covariance.tolist(),
        "spread_deg": result.spread_deg.tolist(),
        "board_scale": result.board_scale,
        "focal_scale": result.focal_scale,
        "image_rms_px": dict(zip(result.used, result.pose_rms_px.tolist())),
        "leave_one_out_mm": dict(
            zip(
                result.used,
                (1e3 * np.linalg.norm(result.leave_one_out[:, 3:], axis=1)).tolist(),
            )
        ),
        "rejected": result.rejected,
    }


def _pose(matrix: np.ndarray) -> dict[str, Any]:
    return {
        "xyz_m": matrix[:3, 3].tolist(),
        "quaternion_wxyz": quaternion_wxyz(matrix).tolist(),
    }
