"""The benchmarks for GPU hosts at a tiny size on the CPU, and how they continue and fail."""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_all
from benchmarks.gpu.device import median_seconds, seconds_per_call
from benchmarks.gpu.parts import Parts, is_out_of_memory
from benchmarks.gpu.plan import Part, Plan
from benchmarks.gpu_train import ARCHIVE
from dexgrasp_deploy.commands.cli import USAGE_ERROR, main

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def bench(folder, name, *texts):
    """The result file of a benchmark."""
    assert main(["bench", name, *texts, "--device", "cpu", "--out", str(folder)]) == 0
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.slow
def test_gpu_sim_measures_what_is_missing(tmp_path):
    texts = ["--backend", "mujoco", "--envs", "2", "--seconds", "0.01", "--images"]
    first = bench(tmp_path, "gpu_sim", *texts, "32x24")["parts"]
    assert first.keys() == {"grasp/2/32x24", "paper/2/32x24"}
    for figures in first.values():
        assert figures["steps_per_s"] > 0 and figures["images_per_s"] > 0
        assert figures["reset_ms"] > 0 and figures["raw_ratio"] is None
    second = bench(tmp_path, "gpu_sim", *texts, "32x24", "64x48", "--tasks", "grasp")
    assert second["settings"]["objects"].keys() == {"grasp"}
    assert second["parts"].keys() == {"grasp/2/32x24", "grasp/2/64x48"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_host_work_finds_the_two_questions_of_a_step(tmp_path):
    """Which episodes have ended, and whether the slot is sound; a reset asks nothing."""
    pytest.importorskip("mujoco_warp")
    sizes = ["--envs", "3", "--worlds", "2", "--repeats", "1"]
    assert main(["bench", "host_work", *sizes, "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "host_work.json").read_text())
    step, begin = (figures["worker"]["3"][name] for name in ("step", "begin"))
    assert step["reads"] == {"devices.rows_of": 1, "env_slice._health": 1}
    assert not begin["reads"] and not figures["backend"]["reads"]
    assert 0 < figures["backend"]["launches"] < step["launches"]


@pytest.mark.slow
def test_gpu_learner_compares_the_same_update(tmp_path):
    texts = ["--envs", "8", "--horizon", "3", "--image", "32x24", "--memory", "4", "--updates"]
    result = bench(tmp_path, "gpu_learner", *texts, "2")
    comparison = result["comparisons"]["8"]
    assert comparison["loss_difference"] < 1e-5
    assert comparison["time_ratio"] > 0 and comparison["memory_ratio"] > 0


@pytest.mark.slow
def test_gpu_capacity_fills_its_table(tmp_path):
    result = bench(
        tmp_path, "gpu_capacity", "--backend", "mujoco", "--images", "32x24", "--horizon", "2",
        "--simulated", "2", "4", "--most", "3", "--budget-gib", "8",
    )  # fmt: skip
    table = result["tables"]["32x24"]
    assert table["data_parallel_float32"] == 4 * 3, "as many as the search may try"
    assert table["disaggregated_ours"] == 3
    assert table["ratio_float32"] == 0.25
    assert set(table["confirmed"]) == {"data_parallel_ours", "disaggregated_ours"}


@pytest.mark.slow
def test_gpu_train_continues_from_its_archive(tmp_path):
    texts = [
        "--backend", "mujoco", "--config", str(ROOT / "config" / "smoke.yaml"), "--envs", "4",
        "--minutes", "5", "--threads", "1", "--set", "ppo.minibatches=1", "--iterations",
    ]  # fmt: skip
    bench(tmp_path, "gpu_train", *texts, "1", "--episodes", "0")
    shutil.rmtree(tmp_path / "gpu_train_runs")
    calls = bench(tmp_path, "gpu_train", *texts, "3", "--episodes", "1")["parts"]["calls"]
    assert [call["iterations"] for call in calls] == [1, 3]
    with tarfile.open(tmp_path / ARCHIVE) as archive:
        names = archive.getnames()
    assert any(name.endswith("iteration_000003/training.pt") for name in names)
    assert not any("simulators" in name or "iteration_000001" in name for name in names)


@pytest.mark.slow
def test_capacity_costs_can_be_measured_with_few_sizes(tmp_path):
    texts = ["--images", "32x24", "--simulated", "2", "--inferred", "2", "--learned", "2"]
    assert main(["bench", "capacity_costs", *texts, "--out", str(tmp_path)]) == 0
    costs = json.loads((tmp_path / "capacity_costs_cpu.json").read_text())["costs"]
    assert costs["process"] > 0 and costs["device"] == "cpu"


@pytest.mark.parametrize("name", ["gpu_sim", "gpu_capacity", "gpu_learner", "gpu_train"])
@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(name, tmp_path, capsys):
    assert main(["bench", name, "--out", str(tmp_path)]) == USAGE_ERROR
    assert "torch finds no GPU" in capsys.readouterr().err.splitlines()[-1]


def test_a_part_that_fails_is_tried_again_and_lack_of_memory_is_a_result(tmp_path):
    parts = Parts(tmp_path, "some", {"size": 1})
    assert parts.run("good", lambda: {"rate": 3}) == {"rate": 3}
    assert parts.run("bad", lambda: 1 / 0) is None
    assert parts.run("large", lambda: torch.empty(2**60)) is None
    again = Parts(tmp_path, "some", {"size": 1})
    assert again.run("good", lambda: pytest.fail("it is known")) == {"rate": 3}
    assert again.run("bad", lambda: {"rate": 4}) == {"rate": 4}
    assert again.run("large", lambda: pytest.fail("memory ran out")) is None
    written = json.loads((tmp_path / "some.json").read_text())["parts"]
    assert "out_of_memory" in written["large"] and written["bad"] == {"rate": 4}


def test_other_settings_begin_anew(tmp_path):
    Parts(tmp_path, "some", {"size": 1}).run("a", lambda: {"rate": 3})
    assert Parts(tmp_path, "some", {"size": 2}).run("a", lambda: {"rate": 5}) == {"rate": 5}


def test_no_part_begins_when_the_time_is_over(tmp_path):
    parts = Parts(tmp_path, "some", {}, until_s=0.0)
    assert parts.run("a", lambda: pytest.fail("too late")) is None
    assert parts.figures == {}


@pytest.mark.parametrize(
    "text",
    ["CUDA out of memory. Tried", "Failed to allocate 3 bytes", "CUBLAS_STATUS_ALLOC_FAILED"],
)
def test_lack_of_memory_is_recognised(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("illegal memory access"))


def test_work_is_repeated_until_it_took_long_enough():
    calls = []
    assert seconds_per_call(lambda: calls.append(0), CPU, least_s=0.01) <= 0.01
    assert len(calls) > 3
    assert median_seconds(lambda: None, CPU, repeats=3) >= 0


def script(folder, name, code, timeout_s=60.0, result=""):
    """A part that runs a piece of Python."""
    return Part(name, lambda left_s: ["-c", code], timeout_s, result)


def host_of(tmp_path, budget_s=100.0):
    options = argparse.Namespace(
        work=tmp_path / "work", out=tmp_path / "out", budget_s=budget_s, device="cpu", commit="c0"
    )
    return gpu_all.Host(options)


@pytest.mark.slow
def test_a_part_that_fails_or_hangs_costs_only_itself(tmp_path):
    host = host_of(tmp_path)
    write = "import json; json.dump({'provenance': {}}, open(%r, 'w'))"
    host.run(script(tmp_path, "fails", "raise SystemExit(5)"))
    host.run(script(tmp_path, "hangs", "import time; time.sleep(1000)", timeout_s=1.0))
    result = write % str(tmp_path / "work" / "good.json")
    host.run(script(tmp_path, "good", result, result="good.json"))
    states = json.loads((tmp_path / "out" / "gpu_all.json").read_text())["parts"]
    assert [state["state"] for state in states.values()] == [
        "failed with code 5",
        "timed out",
        "done",
    ]
    assert json.loads((tmp_path / "out" / "good.json").read_text())["provenance"]["commit"] == "c0"
    with tarfile.open(tmp_path / "out" / "logs.tar.xz") as logs:
        assert {"logs/fails.log", "logs/hangs.log", "logs/good.log"} <= set(logs.getnames())


def test_without_time_no_part_begins(tmp_path):
    host = host_of(tmp_path, budget_s=1.0)
    host.run(script(tmp_path, "late", "raise SystemExit(5)"))
    assert host.states["late"] == {"state": "no time left"}


@pytest.mark.parametrize("tiny", [False, True])
def test_at_most_eight_files_come_back(tiny, tmp_path):
    parts = Plan(tmp_path, "cuda:0", "mujoco_warp", tiny).parts()
    assert len({part.name for part in parts}) == len(parts)
    results = {part.result for part in parts if part.result}
    assert len(results | {"gpu_all.json", "logs.tar.xz"}) <= 8
    for part in parts:
        assert all(isinstance(text, str) for text in part.command(part.timeout_s))


def test_what_was_packed_is_unpacked_and_damage_is_noticed(tmp_path):
    """With the parts that benchmarks/pack_wheels.sh writes, small ones."""
    parts = tmp_path / "parts"
    parts.mkdir()
    with tarfile.open(tmp_path / "site.tar.xz", "w:xz") as archive:
        archive.add(__file__, arcname="package/module.py")
    content = (tmp_path / "site.tar.xz").read_bytes()
    half = len(content) // 2
    (parts / "site.tar.xz.1").write_bytes(content[:half])
    (parts / "site.tar.xz.2").write_bytes(content[half:])
    subprocess.run("sha256sum site.tar.xz.* > site.sums", shell=True, cwd=parts, check=True)
    command = [ROOT / "benchmarks" / "unpack_wheels.sh", parts, tmp_path / "site"]
    subprocess.run(command, check=True)
    assert (tmp_path / "site/package/module.py").read_bytes() == Path(__file__).read_bytes()
    (parts / "site.tar.xz.2").write_bytes(content[:half])
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "bring them again" in refused.stderr


@pytest.mark.slow
def test_the_list_can_be_named_and_runs_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_all", "--device", "cpu", "--tiny"]
    command += ["--backend", "mujoco", "--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]
    listed = subprocess.run([*command, "--list"], cwd=ROOT, capture_output=True, text=True)
    assert listed.stdout.split()[:3] == ["facts", "engine_contract", "gpu_sim"]
    wrong = subprocess.run([*command, "--parts", "nonsense"], cwd=ROOT, capture_output=True)
    assert wrong.returncode == 2
    subprocess.run([*command, "--parts", "gpu_sim", "gpu_profile"], cwd=ROOT, check=True)
    assert (tmp_path / "o" / "gpu_sim.json").is_file()
    states = json.loads((tmp_path / "o" / "gpu_all.json").read_text())["parts"]
    profile = json.loads(states["gpu_profile"]["last_lines"][-1])
    assert profile["step_ms"] > 0.0
    assert all(stage["ms"] >= stage["host_ms"] > 0.0 for stage in profile["stages"].values())
