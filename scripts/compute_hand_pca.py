"""Computes the principal components of the hand from synthesised grasps, within a minute.

    python scripts/compute_hand_pca.py --robot kuka_allegro

writes `hand_pca.yaml` beside the robot's file. The same seed gives the same file on the same
machine; on another one the last digits may differ.
"""

from pathlib import Path

import torch
import yaml

from dexgrasp_sim.arguments import Parser, add_seed, whole
from dexgrasp_sim.robot.grasp_synthesis import GraspSynthesis, synthesise
from dexgrasp_sim.robot.hand_pca import fit
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, load_robot

_HEADER = """\
# Principal components of hand joint positions, written by scripts/compute_hand_pca.py
# from {found} grasps found for {count} random shapes (seed {seed}). Do not edit.
"""


def main() -> None:
    """Reads the command line, computes, writes the file and prints its quality."""
    defaults = GraspSynthesis()
    parser = Parser(description="Fit the principal components of the hand.")
    parser.add_argument("--count", type=whole(2), default=defaults.count, help="grasps tried")
    add_seed(parser, defaults.seed, "the shapes")
    parser.add_argument("--robot", default=DEFAULT_ROBOT, help="name or robot.yaml")
    parser.add_argument("--output", type=Path, help="YAML file; default: beside the robot's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the order of sums, and so the result, does not depend on the host
    config = GraspSynthesis(count=arguments.count, seed=arguments.seed)
    robot = load_robot(arguments.robot)
    grasps = synthesise(robot, config)
    flat, rest = torch.tensor(robot.flat_hand), torch.tensor(robot.postures["reset"][robot.hand])
    components = fit(grasps, flat, rest, robot.hand_joints)
    header = _HEADER.format(found=len(grasps), count=config.count, seed=config.seed)
    body = yaml.safe_dump(components.to_dict(), sort_keys=False, default_flow_style=None, width=99)
    output = arguments.output or robot.path.with_name("hand_pca.yaml")
    output.write_text(header + body, encoding="utf-8")
    print(f"{len(grasps)} of {config.count} grasps, explained {components.explained:.3f}")


if __name__ == "__main__":
    main()
