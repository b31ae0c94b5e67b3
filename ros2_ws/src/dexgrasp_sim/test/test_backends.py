"""The choice of a physics backend by name."""

import dataclasses

import pytest

from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.physics.backends import BACKENDS, Backend, make_engine
from dexgrasp_sim.tasks.grasp.config import GraspConfig


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"physics.backend.*'bullet'.*give one of mujoco"):
        parse_config(GraspConfig, {"physics": {"backend": "bullet"}})


def test_a_device_that_a_backend_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"'mujoco' computes on cpu, not on 'cuda:0'; change"):
        make_engine(GraspConfig().scene(1), "cuda:0")


def test_a_backend_that_is_not_installed_is_refused_with_the_remedy(monkeypatch):
    absent = Backend("no_such_package.engine", "Engine", "no-such-package", ("cpu",), "buy it")
    monkeypatch.setitem(BACKENDS, "absent", absent)
    task = parse_config(GraspConfig, {"physics": {"backend": "absent"}})
    with pytest.raises(ConfigError, match=r"'absent' cannot be imported .*; buy it") as error:
        make_engine(task.scene(1))
    assert "\n" not in str(error.value)


def test_every_backend_names_a_class_and_the_kinds_of_devices():
    for name, backend in BACKENDS.items():
        assert all(dataclasses.astuple(backend)), name
        assert set(backend.devices) <= {"cpu", "cuda"}
