from glob import glob

from setuptools import find_packages, setup

NAME = "dexgrasp_learner"

setup(
    name=NAME,
    version="0.1.0",
    description="Recurrent PPO and distillation that learn from simulator workers.",
    maintainer="dexgrasp developers",
    maintainer_email="dexgrasp@example.org",
    license="Apache-2.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["**/*.urdf", "**/*.yaml", "**/*.html", "**/*.md"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/rviz", sorted(glob("rviz/*.rviz"))),
        (f"share/{NAME}/config", sorted(glob("config/*.yaml"))),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "learner_node = dexgrasp_learner.nodes.programs:learner_node",
        ],
    },
)
