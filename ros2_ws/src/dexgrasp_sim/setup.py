from glob import glob

from setuptools import find_packages, setup

NAME = "dexgrasp_sim"

setup(
    name=NAME,
    version="0.1.0",
    description="Robot model, physics backends, grasp task and simulator workers.",
    maintainer="dexgrasp developers",
    maintainer_email="dexgrasp@example.org",
    license="Apache-2.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["**/*.urdf", "**/*.yaml"]},
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
            "sim_worker_node = dexgrasp_sim.nodes.programs:sim_worker_node",
        ],
    },
)
