"""The viewer in a real browser: the page loads, shows the scene and obeys its controls."""

import threading

import numpy as np
import pytest

from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy
from dexgrasp_sim.view.env_source import EnvSource
from dexgrasp_sim.view.viewer import Viewer
from test_support.browser import TIMEOUT_S, open_page
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

CONFIG = GraspConfig()


@pytest.fixture(scope="module")
def viewed():
    """A source and its viewer, which runs in a thread."""

    def make_policy(env):
        policy = ScriptedPolicy(env)
        return lambda observations, begins: policy.act()

    source = EnvSource("scripted policy", CONFIG, make_policy, (), num_envs=3)
    stop = threading.Event()
    with Viewer(source, CONFIG, port=0) as viewer:
        for _ in range(4):
            viewer.tick()
        viewer.panel.wishes.is_paused = True  # a page at rest needs few frames
        loop = threading.Thread(target=viewer.run, args=(stop,))
        loop.start()
        yield source, viewer
        stop.set()
        loop.join(TIMEOUT_S)
        assert not loop.is_alive()


@pytest.fixture(scope="module")
def page(browser, viewed, tmp_path_factory):
    profile = tmp_path_factory.mktemp("profile")
    with open_page(browser, viewed[1].url, profile) as page:
        wait_until(viewed[1].server.get_clients, "the page's websocket")
        wait_until(lambda: "environment" in page.text(), "the panel")
        yield page


def test_the_page_shows_what_the_panel_says(page, viewed):
    text = page.text()
    for words in ("scripted policy", "Pause", "New episode", "depth (near is bright)"):
        assert words in text
    wait_until(lambda: "time in the episode" in page.text(), "the figures")
    source, _ = viewed
    assert source.moment().facts["object"] in page.text()
    pictures = "[...document.querySelectorAll('img')].map(i => [i.naturalWidth, i.naturalHeight])"
    assert max(page.evaluate(pictures)) > [600, 100]
    assert page.evaluate("document.querySelectorAll('.uplot canvas').length") == 2


def test_the_scene_and_the_panel_are_drawn(page, viewed):
    _, viewer = viewed
    with page.only_the_scene():
        wait_until(lambda: page.orange_pixels() > 1000, "the robot")
    image = page.screenshot()
    width = image.shape[1]
    for half in (image[:, : width // 2], image[:, 3 * width // 4 :]):
        assert len(np.unique(half.reshape(-1, 3), axis=0)) > 200
        assert half.std() > 10
    scene = viewer.server.scene
    links = [link.name for link in load_robot().links.values() if link.visuals]
    frames = [scene.get_handle_by_name(f"/robot/{name}") for name in links]
    for frame in frames:
        frame.visible = False
    with page.only_the_scene():  # what the page shows is what the nodes say
        wait_until(lambda: page.orange_pixels() == 0, "the robot to vanish")
    for frame in frames:
        frame.visible = True


def test_the_controls_do_what_they_say(page, viewed):
    source, viewer = viewed
    stopped_s = source.moment().time_s
    page.click("Step")
    wait_until(lambda: source.moment().time_s > stopped_s, "the step")
    assert source.moment().time_s == pytest.approx(stopped_s + source.period_s)
    page.press("[role=slider]", "ArrowRight")
    wait_until(lambda: source.env == 1, "the other environment")
    wait_until(lambda: CONFIG.objects[1].name in page.text(), "its object")
    page.click("New episode")
    wait_until(lambda: "0.0 of" in page.text(), "the new episode")
    assert source.moment().time_s == pytest.approx(stopped_s + source.period_s)  # still paused
    page.click("Run")
    wait_until(lambda: source.moment().time_s > stopped_s + 3 * source.period_s, "time to pass")
    page.click("Pause")
    wait_until(lambda: viewer.panel.wishes.is_paused, "the pause")
