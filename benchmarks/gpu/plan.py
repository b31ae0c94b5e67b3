"""The parts of `benchmarks.gpu_all`, in order of value."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import CHECKOUT

_ENGINE_TESTS = (
    "test_engine_contract.py",
    "test_engine_images.py",
    "test_engine_parameters.py",
    "test_mujoco_warp.py",
)
"""They compile kernels that no other part needs, which takes minutes."""
_GPU_MARK = "cuda.is_available"
_LEAST_S = 6.0


@dataclass(frozen=True)
class Part:
    """A step of the list.

    Attributes:
        name: Also that of its log.
        command: Arguments after the interpreter's name, for a number of seconds that are left.
        timeout_s: Longest time.
        result: Its file in the work folder, if any.
    """

    name: str
    command: Callable[[float], list[str]]
    timeout_s: float
    result: str = ""


class Plan:
    """Makes the parts for a device."""

    def __init__(self, work: Path, device: str, backend: str, tiny: bool) -> None:
        """Args:
        work: Folder in which benchmarks write and continue.
        device: `cuda`, `cuda:K` or `cpu`.
        backend: `physics.backend`.
        tiny: Sizes that a CPU can do, to try the list.
        """
        self._work, self._device, self._backend, self._tiny = work, device, backend, tiny
        self._kind = "cpu" if device == "cpu" else "cuda"
        self._on = f"--device {device} --backend {backend}"

    def parts(self) -> list[Part]:
        """All parts."""
        costs = f"capacity_costs_{self._kind}.json"
        return [
            Part("facts", lambda _: ["-m", "benchmarks.gpu.facts", self._device], 150),
            Part("engine_contract", lambda _: self._engine_contract(), 90),
            Part("gpu_sim", self._sim, 110, "gpu_sim.json"),
            Part("gpu_profile", lambda _: self._profile(), 100),
            Part("gpu_learner", self._learner, 110, "gpu_learner.json"),
            Part("gpu_capacity", self._capacity, 150, "gpu_capacity.json"),
            Part("gpu_transport", self._transport, 90, "gpu_transport.json"),
            Part("gpu_tests", lambda _: self._gpu_tests(), 60),
            Part("gpu_sim_many", self._sim_many, 50, "gpu_sim.json"),
            Part("gpu_capacity_large", self._capacity_large, 150, "gpu_capacity.json"),
            Part("gpu_train", self._train, 600, "gpu_train.json"),
            Part("engine_tests", lambda _: self._engine_tests(), 240),
            Part("capacity_costs", self._costs, 150, costs),
            Part("gpu_sim_sweep", self._sweep, 300, "gpu_sim.json"),
        ]

    def _bench(self, name: str, usual: str, small: str) -> list[str]:
        chosen = (small if self._tiny else usual).split()
        command = ["-m", "dexgrasp_deploy.commands.cli", "bench", name]
        return [*command, *chosen, "--out", str(self._work)]

    def _transport(self, left_s: float) -> list[str]:
        del left_s
        small = f"--device {self._kind} --envs 2 2 --rounds 1 --steps 2 --workers 1"
        return self._bench("gpu_transport", "--rounds 2 --steps 30", small)

    def _sim(self, left_s: float) -> list[str]:
        on = f"{self._on} --minutes {_minutes(left_s, 30)}"
        return self._bench(
            "gpu_sim",
            f"{on} --envs 4096 --images 64x64 160x120",
            f"{on} --envs 2 --images 32x24 --seconds 0.05 --tasks grasp",
        )

    def _profile(self) -> list[str]:
        size = "--envs 4 --image 32x24 --repeats 1" if self._tiny else "--envs 4096"
        on = ["-m", "benchmarks.gpu.profile", self._device, "--backend", self._backend]
        return [*on, *size.split()]

    def _sim_many(self, left_s: float) -> list[str]:
        on = f"{self._on} --minutes {_minutes(left_s, 30)}"
        return self._bench(
            "gpu_sim",
            f"{on} --envs 16384 --images 64x64",
            f"{on} --envs 3 --images 32x24 --seconds 0.05 --tasks grasp",
        )

    def _sweep(self, left_s: float) -> list[str]:
        on = f"{self._on} --minutes {_minutes(left_s, 30)}"
        return self._bench(
            "gpu_sim", on, f"{on} --envs 2 --images 16x16 --seconds 0.05 --tasks grasp"
        )

    def _capacity(self, left_s: float, usual: str = "160x120", small: str = "32x24") -> list[str]:
        on = f"{self._on} --minutes {_minutes(left_s, 45)}"
        return self._bench(
            "gpu_capacity",
            f"{on} --images {usual}",
            f"{on} --images {small} --horizon 2 --simulated 2 4 --most 4 --budget-gib 2",
        )

    def _capacity_large(self, left_s: float) -> list[str]:
        return self._capacity(left_s, "160x120 320x240", "32x24 16x16")

    def _learner(self, left_s: float) -> list[str]:
        on = f"--device {self._kind} --minutes {_minutes(left_s, 45)}"
        return self._bench(
            "gpu_learner", on, f"{on} --envs 8 --horizon 2 --image 32x24 --memory 4 --updates 1"
        )

    def _costs(self, left_s: float) -> list[str]:
        del left_s
        on = f"--device {self._kind} --backend {self._backend}"
        usual = f"{on} --simulated 64 512 --inferred 64 512 --learned 32 128"
        return self._bench(
            "capacity_costs",
            usual,
            f"{on} --images 32x24 --simulated 2 --inferred 2 --learned 2",
        )

    def _train(self, left_s: float) -> list[str]:
        minutes = _minutes(left_s, 0 if self._tiny else 75)
        on = f"{self._on} --minutes {minutes}"
        return self._bench(
            "gpu_train",
            f"{on} --config config/gpu_wide.yaml --envs 4096 --episodes 64 --threads 14",
            f"{on} --config config/smoke.yaml --envs 8 --iterations 1 --episodes 2 --threads 1",
        )

    def _engine_contract(self) -> list[str]:
        """What failed on a GPU once, and what is new since; with the whole error text."""
        folder = CHECKOUT / "ros2_ws/src/dexgrasp_sim/test"
        chosen = "shapes" if self._tiny else "leaves or part or reads or errors_of_warp"
        names = ("test_engine_contract.py", "test_mujoco_warp.py", "test_image_errors.py")
        files = [str(folder / name) for name in names[: 1 if self._tiny else None]]
        return _pytest(*files, "-k", f"({self._backend} or warp) and ({chosen})", "--tb", "long")

    def _engine_tests(self) -> list[str]:
        folder = CHECKOUT / "ros2_ws/src/dexgrasp_sim/test"
        if self._tiny:
            return _pytest(str(folder / _ENGINE_TESTS[0]), "-k", f"{self._backend} and shapes")
        files = [str(folder / name) for name in _ENGINE_TESTS]
        return _pytest(*files, "-k", self._backend, "--durations", "8")

    def _gpu_tests(self) -> list[str]:
        """Files with tests that are skipped where there is no GPU, and need few kernels."""
        # last those of the checkout, which start many workers
        folders = [*sorted((CHECKOUT / "ros2_ws/src").glob("*/test"))[::-1], CHECKOUT / "tests"]
        paths = [path for folder in folders for path in sorted(folder.glob("test_*.py"))]
        files = [path for path in paths if path.name not in _ENGINE_TESTS]
        chosen = [str(path) for path in files if _GPU_MARK in path.read_text(encoding="utf-8")]
        return _pytest(*chosen[: 1 if self._tiny else None])


def _pytest(*texts: str) -> list[str]:
    return ["-m", "pytest", "-v", "-p", "no:cacheprovider", "--timeout", "120", *texts]


def _minutes(left_s: float, spare_s: float) -> str:
    return f"{max(left_s - spare_s, _LEAST_S) / 60:.2f}"
