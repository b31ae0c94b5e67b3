"""The newest checkpoint is found by its number, and a damaged one is told from a whole one."""

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from dexgrasp_learner.storage.checkpoint import load_state, load_training
from dexgrasp_learner.storage.checkpoint_files import (
    DamagedCheckpoint,
    fault_in,
    find_checkpoint,
    list_checkpoints,
    reading,
    run_folder_of,
    seal,
    write_atomically,
)
from dexgrasp_sim.config import ConfigError
from test_support.full_disk import full_disk

STATE = {"iteration": 0, "config": {}, "schema_hash": "0"}


def make(parent, name, state=STATE):
    """A small checkpoint with all kinds of files."""
    folder = parent / name
    (folder / "simulators").mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps(state))
    save_file({"weight": torch.arange(9.0)}, folder / "actor.safetensors")
    torch.save({"algorithm": {"step": torch.arange(4)}}, folder / "training.pt")
    save_file({"env.x": torch.arange(5)}, folder / "simulators" / "worker_0.safetensors")
    seal(folder)
    return folder


FILES = ("state.json", "actor.safetensors", "training.pt", "simulators/worker_0.safetensors")


@pytest.fixture
def run(tmp_path):
    """A run folder with checkpoints of iterations 2 and 4, and the link to the newest."""
    folder = tmp_path / "run"
    for name in ("iteration_000002", "iteration_000004"):
        make(folder / "checkpoints", name)
    (folder / "checkpoints" / "latest").symlink_to("iteration_000004")
    (folder / "config.yaml").write_text("{}")
    return folder


def replace_link_by_copy(run, name):
    latest = run / "checkpoints" / "latest"
    latest.unlink()
    if name:
        shutil.copytree(run / "checkpoints" / name, latest)


@pytest.mark.parametrize("copied", ["iteration_000002", "iteration_000004", ""])
def test_a_copy_without_links_has_the_same_newest_checkpoint(run, copied):
    replace_link_by_copy(run, copied)
    assert find_checkpoint(run) == run / "checkpoints" / "iteration_000004"
    assert find_checkpoint(run / "checkpoints") == run / "checkpoints" / "iteration_000004"


def test_a_link_that_leads_nowhere_or_to_an_older_one_does_not_matter(run):
    for target in ("iteration_000099", "iteration_000002"):
        latest = run / "checkpoints" / "latest"
        latest.unlink()
        latest.symlink_to(target)
        assert find_checkpoint(run) == run / "checkpoints" / "iteration_000004"


def test_a_lone_copy_of_the_newest_one_is_found(run):
    replace_link_by_copy(run, "iteration_000004")
    for name in ("iteration_000002", "iteration_000004"):
        shutil.rmtree(run / "checkpoints" / name)
    assert find_checkpoint(run) == run / "checkpoints" / "latest"


def test_numbers_decide_not_the_order_of_the_letters(tmp_path):
    for name in ("iteration_999998", "iteration_1000000", "iteration_999999", "iteration_old"):
        make(tmp_path, name)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "iteration_1000000",
        "iteration_999999",
        "iteration_999998",
    ]


def test_a_checkpoint_belongs_to_the_run_that_it_is_in(run, monkeypatch):
    checkpoint = run / "checkpoints" / "iteration_000002"
    for path in (run, run / "checkpoints", run / "checkpoints" / "latest", checkpoint):
        assert run_folder_of(path) == run
    monkeypatch.chdir(checkpoint)
    assert run_folder_of(type(run)(".")) == run


def damage(file, kind):
    content = file.read_bytes()
    if kind == "removed":
        file.unlink()
    elif kind == "emptied":
        file.write_bytes(b"")
    elif kind == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif kind == "zeroed":
        file.write_bytes(bytes(len(content)))


def refusal(call, *arguments):
    """The message with which a damaged checkpoint is refused; it must be one line."""
    with pytest.raises(DamagedCheckpoint) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["removed", "emptied", "truncated", "zeroed"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_an_older_checkpoint_that_is_whole(run, name, kind):
    checkpoint = run / "checkpoints" / "iteration_000004"
    damage(checkpoint / name, kind)
    message = refusal(find_checkpoint, run)
    assert message.startswith(f"{checkpoint}/{name}: ")
    assert message.endswith(f"whole: {run / 'checkpoints' / 'iteration_000002'}")
    assert find_checkpoint(run / "checkpoints" / "iteration_000002")


@pytest.mark.parametrize("kind", ["removed", "emptied", "truncated", "zeroed"])
@pytest.mark.parametrize("name", FILES[:3])
def test_so_it_is_in_a_checkpoint_of_a_version_without_checksums(run, name, kind):
    for checkpoint in list_checkpoints(run):
        (checkpoint / "checksums.json").unlink()
    damage(run / "checkpoints" / "iteration_000004" / name, kind)
    message = refusal(find_checkpoint, run)
    assert f"iteration_000004/{name}: " in message
    assert message.endswith("iteration_000002")


def test_without_an_older_whole_one_that_is_said(run):
    for checkpoint in list_checkpoints(run):
        damage(checkpoint / "training.pt", "truncated")
    assert "no older whole checkpoint" in refusal(find_checkpoint, run)


def test_damaged_checksums_are_damage_too(run):
    checkpoint = run / "checkpoints" / "iteration_000004"
    for content in ("{", "[]", "{}", '{"state.json": 3}'):
        (checkpoint / "checksums.json").write_text(content)
        assert "checksums.json: is damaged" in refusal(find_checkpoint, run)


def test_who_needs_the_actor_only_is_not_kept_from_it_by_other_files(run):
    checkpoint = run / "checkpoints" / "iteration_000004"
    damage(checkpoint / "training.pt", "truncated")
    shutil.rmtree(checkpoint / "simulators")
    assert find_checkpoint(run, ("state.json", "actor.safetensors")) == checkpoint
    damage(checkpoint / "actor.safetensors", "truncated")
    message = refusal(find_checkpoint, run, ("state.json", "actor.safetensors"))
    assert "actor.safetensors: is truncated" in message


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole"), "iteration_000001")


@given(name=st.sampled_from((*FILES, "checksums.json")), data=st.data())
def test_no_changed_byte_and_no_cut_goes_unnoticed(whole, name, data):
    file = whole / name
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        for changed in (content[:place], bytes(flipped)):
            file.write_bytes(changed)
            same = name == "checksums.json" and _equal_json(changed, content)
            assert bool(fault_in(whole)) != same
    finally:
        file.write_bytes(content)
    assert not fault_in(whole)


def _equal_json(first, second):
    try:
        return json.loads(first) == json.loads(second)
    except ValueError:
        return False


def test_a_key_that_another_version_did_not_write_is_named(run):
    checkpoint = run / "checkpoints" / "iteration_000004"
    (checkpoint / "state.json").write_text(json.dumps({"iteration": 4}))
    message = refusal(load_state, checkpoint)
    assert message.startswith(f"{checkpoint}/state.json: lacks 'config'")
    assert f"run.json and history.jsonl in {run} name the commit" in message
    torch.save({"memory": {}}, checkpoint / "training.pt")
    message = refusal(load_training, checkpoint, ["step"])
    assert message.startswith(f"{checkpoint}/training.pt: lacks 'algorithm'")


def test_whatever_a_parser_raises_becomes_one_line_but_a_refusal_stays_as_it_is(run):
    file = run / "checkpoints" / "iteration_000004" / "training.pt"

    def fail(error):
        with reading(file):
            raise error

    for error in (RuntimeError("two\nlines"), EOFError(), OSError(5, "Input/output error")):
        message = refusal(fail, error)
        assert message.startswith(f"{file}: cannot be read (") and "iteration_000002" in message
    with pytest.raises(ConfigError, match=r"^as it is$"):
        fail(ConfigError("as it is"))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "config.yaml"
    write_atomically(file, "old")
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        write_atomically(file, "new" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert file.read_text() == "old"
