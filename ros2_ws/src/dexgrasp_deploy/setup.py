from glob import glob

from setuptools import find_packages, setup

NAME = "dexgrasp_deploy"

setup(
    name=NAME,
    version="0.1.0",
    description="Runs a policy bundle on a mock, simulated or real robot; the dexgrasp command.",
    maintainer="dexgrasp developers",
    maintainer_email="dexgrasp@example.org",
    license="Apache-2.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["**/*.urdf", "**/*.yaml", "**/*.html"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*.yaml"))),
        (f"share/{NAME}/rviz", sorted(glob("rviz/*.rviz"))),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "dexgrasp = dexgrasp_deploy.commands.cli:main",
            "camera_node = dexgrasp_deploy.nodes.programs:camera_node",
            "display_node = dexgrasp_deploy.nodes.programs:display_node",
            "episode_node = dexgrasp_deploy.nodes.programs:episode_node",
            "recorder_node = dexgrasp_deploy.nodes.programs:recorder_node",
            "policy_node = dexgrasp_deploy.nodes.programs:policy_node",
            "robot_driver_node = dexgrasp_deploy.nodes.programs:robot_driver_node",
        ],
    },
)
