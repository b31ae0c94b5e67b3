"""YAML files mean what they say: keys once, words are words, paths count from their file."""

from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT, ConfigError, load_config, to_dict
from dexgrasp_sim.yaml_file import absolute_path, as_yaml, read_values, with_override


@dataclass(frozen=True, config=STRICT)
class Clock:
    rate_hz: float = 1.0
    steps: int = 1
    on: bool = False
    name: str = "clock"
    limit_s: float | None = 3.0
    counts: tuple[int, ...] = ()
    file: Annotated[Path, BeforeValidator(absolute_path)] = Path("/default")


@dataclass(frozen=True, config=STRICT)
class Wall:
    clock: Clock = Clock()
    other: Clock = Clock()
    height_m: float = 2.0


@pytest.fixture
def write(tmp_path):
    def write(text, name="run.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("height_m: 1\nclock: {}\nheight_m: 2\n", "`height_m` is given in line 1 and again in l"),
        (
            "clock:\n  steps: 1\nother: {}\nclock:\n  on: yes\n",
            "`clock` is given in line 1 and ag",
        ),
        ("clock:\n  steps: 1\n  on: yes\n  steps: 1\n", "`steps` is given in line 2 and again in"),
        ("clock: {steps: 1, steps: 1}\n", "`steps` is given in line 1 and again in line 1"),
        ("a: [{b: [{steps: 1, 'steps': 2}]}]\n", "`steps` is given in line 1"),
        ("base: a.yaml\nbase: b.yaml\n", "`base` is given in line 1 and again in line 2"),
    ],
)
def test_a_key_given_twice_is_an_error_with_both_lines(write, text, needle):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_config(Wall, path)
    assert str(error.value).startswith(f"{path}: key {needle}")
    assert "keep one of them" in str(error.value) and "\n" not in str(error.value)


def test_a_base_or_an_override_may_give_a_key_again(write):
    write("height_m: 1\nclock: {steps: 2}\n", "base.yaml")
    path = write("base: base.yaml\nheight_m: 3\nclock: {on: true}\n")
    wall = load_config(Wall, path, ["height_m=4"])
    assert (wall.height_m, wall.clock) == (4.0, Clock(steps=2, on=True))


def test_anchors_and_merge_keys_work_and_do_not_share_values(write):
    path = write(
        "clock: &usual {steps: 5, rate_hz: 2}\n"
        "other:\n  <<: *usual\n  steps: 6\n"  # a key over a merged one is no repetition
    )
    wall = load_config(Wall, path)
    assert (wall.clock.steps, wall.other.steps, wall.other.rate_hz) == (5, 6, 2.0)
    alias = write("clock: &usual {steps: 5}\nother: *usual\n", "alias.yaml")
    changed = load_config(Wall, alias, ["other.steps=7"])
    assert (changed.clock.steps, changed.other.steps) == (5, 7)
    with pytest.raises(ConfigError, match="an anchor contains itself"):
        load_config(Wall, write("clock: &loop {counts: *loop}\n", "loop.yaml"))


def test_merged_anchors_of_inner_blocks_are_no_repetition(write):
    path = write(
        "clock: {on: true}\n"
        "x: {y: &inner {<<: {steps: 1}, steps: 2}}\nother: {<<: *inner, rate_hz: 3}\n"
    )
    assert read_values(path)["other"] == {"steps": 2, "rate_hz": 3}


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "NO"])
def test_yes_and_no_are_truths_for_switches_words_for_names_and_no_numbers(write, word):
    wanted = word.lower() in ("yes", "on")
    assert load_config(Clock, write(f"on: {word}\nname: {word}\n")) == Clock(on=wanted, name=word)
    with pytest.raises(ConfigError, match=rf"`steps` = '{word}': .*integer"):
        load_config(Clock, write(f"steps: {word}\n"))


@pytest.mark.parametrize(
    "text", ["steps: true", "rate_hz: false", "counts: [1, True]", "limit_s: TRUE"]
)
def test_true_and_false_are_no_numbers(write, text):
    key = text.split(":")[0]
    with pytest.raises(ConfigError, match=rf"`{key}[.1]*` = (True|False): a number is needed"):
        load_config(Clock, write(text))
    assert load_config(Clock, write("on: true")).on


@pytest.mark.parametrize(
    ("text", "steps"), [("010", 10), ("1_000", 1000), ("+7", 7), ("-0", 0), ('"12"', 12)]
)
def test_whole_numbers_are_decimal(write, text, steps):
    assert load_config(Clock, write(f"steps: {text}\n")).steps == steps


@pytest.mark.parametrize("text", ["1:30", "0x10", "0o10", "0b1", "2026-01-01", "1e400", ".nan"])
def test_numbers_that_only_some_programs_read_are_refused_by_name(write, text):
    for key in ("steps", "rate_hz"):
        with pytest.raises(ConfigError, match=rf"`{key}` = .*(number|integer)"):
            load_config(Clock, write(f"{key}: {text}\n"))


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1.0e-3", ".001", "0.001", "1.e-3"])
def test_every_way_to_write_a_small_number_is_that_number(write, text):
    assert read_values(write(f"rate_hz: {text}\n")) == {"rate_hz": 0.001}


def test_names_may_look_like_other_things(write):
    for name in ("no", "1:30", "007", "2026-01-01", "0x10", "1.2.3", "a=b"):
        clock = load_config(Clock, write(f"name: {name}\n"))
        assert clock.name == name and type(clock.name) is str


def test_a_number_as_a_name_needs_quotes_and_the_message_says_so(write):
    with pytest.raises(ConfigError, match=r"`name` = 0\.001: .*string; put it in quotes"):
        load_config(Clock, write("name: 1e-3\n"))
    assert load_config(Clock, write("name: '1e-3'\n")).name == "1e-3"


@pytest.mark.parametrize("text", ["null", "~", "", "Null"])
def test_nothing_is_nothing(write, text):
    assert load_config(Clock, write(f"limit_s: {text}\n")).limit_s is None


LOOKALIKES = ["1e-3", "1e5", "no", "on", "010", "1:30", "0x1", "~", "null", "true", "<<", "=", ""]


@given(
    st.floats(-1e4, 1e4).filter(lambda rate: abs(rate) >= 0.01),
    st.integers(-(10**15), 10**15),
    st.text() | st.sampled_from(LOOKALIKES) | st.from_regex(r"[-+.:eE_0-9]{1,6}", fullmatch=True),
)
def test_what_a_config_is_written_as_is_read_back(tmp_path_factory, rate, steps, name):
    clock = Clock(rate_hz=rate, steps=steps, name=name, counts=(0, -7))
    path = tmp_path_factory.mktemp("written") / "clock.yaml"
    path.write_text(as_yaml(to_dict(clock)), encoding="utf-8", newline="")
    assert load_config(Clock, path) == clock


def test_paths_count_from_the_file_that_holds_them(write, tmp_path, monkeypatch):
    write("clock: {file: deep.obj}\nother: {file: deep.obj}\n", "deep/base.yaml")
    path = write("base: deep/base.yaml\nother: {file: top.obj}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for given_path in (path, Path("../run.yaml")):
        wall = load_config(Wall, given_path)
        assert wall.clock.file.resolve() == tmp_path / "deep" / "deep.obj"
        assert wall.other.file.resolve() == tmp_path / "top.obj"
        assert wall.clock.file.is_absolute()


def test_paths_of_the_command_line_count_from_the_working_folder(write, tmp_path, monkeypatch):
    path = write("clock: {file: a.obj}\n", "deep/run.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    wall = load_config(Wall, path, ["clock.file=b.obj", "other={file: ~/c.obj}"])
    assert wall.clock.file == tmp_path / "b.obj"
    assert wall.other.file == Path("/home/somebody/c.obj")
    assert load_config(Wall, path, ["other.file=/d.obj"]).other.file == Path("/d.obj")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["clock.steps=x"], ["--set clock.steps=x: `clock.steps` = 'x'"]),
        (["height_m=3", "clock.stepz=1"], ["--set clock.stepz=1: unknown key `clock.stepz`"]),
        (["clock={steps: no}"], ["--set clock={steps: no}: `clock.steps` = 'no'"]),
        (["clock.steps=true"], ["--set clock.steps=true: `clock.steps` = True"]),
        (
            ["clock.rate_hz=a", "other.rate_hz=b"],
            ["--set clock.rate_hz=a: `clock.rate_hz`", "--set other.rate_hz=b: `other.rate_hz`"],
        ),
        (["clock.steps=1", "clock.steps=[1"], ["--set clock.steps=[1: not valid YAML"]),
        (["clock={on: no, on: no}"], ["--set clock={on: no, on: no}: key `on` is given in line"]),
    ],
)
def test_a_wrong_override_is_to_blame_not_the_file(write, overrides, wanted):
    path = write("height_m: 1\n")
    with pytest.raises(ConfigError) as error:
        load_config(Wall, path, overrides)
    for words in wanted:
        assert words in str(error.value)
    assert str(path) not in str(error.value)


def test_file_and_override_are_each_blamed_for_their_own(write):
    path = write("height_m: high\nclock: {steps: x}\n")
    with pytest.raises(ConfigError) as error:
        load_config(Wall, path, ["other.steps=y", "clock.steps=2"])
    assert f"{path}: `height_m` = 'high'" in str(error.value)
    assert "--set other.steps=y: `other.steps` = 'y'" in str(error.value)
    assert "clock" not in str(error.value)


def test_an_override_leaves_the_given_values_alone():
    values = {"a": {"b": 1}}
    assert with_override(values, "a.b=2") == {"a": {"b": 2}}
    assert values == {"a": {"b": 1}}


def test_a_mapping_of_another_kind_begins_anew(write):
    write("action: {speed: 2}\nview: {kind: wide, angle: 1}\n", "base.yaml")
    path = write("base: base.yaml\naction: {kind: fabric, gain: 3}\nview: {kind: wide, zoom: 2}\n")
    assert read_values(path) == {
        "action": {"kind": "fabric", "gain": 3},
        "view": {"kind": "wide", "angle": 1, "zoom": 2},
    }
