"""The viewer in a real browser: the page loads, shows the scene and obeys its controls."""

import base64
import json
import os
import signal
import subprocess
import threading
import urllib.request
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from websockets.sync.client import connect

from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy
from dexgrasp_sim.view.env_source import EnvSource
from dexgrasp_sim.view.viewer import Viewer
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

TIMEOUT_S = 120.0
CONFIG = GraspConfig()
# three.js marks its canvas; what lies above it, such as the browser's word on software rendering,
# is as large as the machine's fonts make it
ONLY_THE_SCENE = "body *{visibility:hidden} canvas[data-engine]{visibility:visible}"
# without a display, a GPU or the network; as root and in containers
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--window-size=1000,640",
    "--remote-debugging-port=0",
)


class Page:
    """A page in a browser, through the Chrome DevTools Protocol."""

    def __init__(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=TIMEOUT_S) as answer:
            targets = json.load(answer)
        [target] = [target for target in targets if target["type"] == "page"]
        self._socket = connect(target["webSocketDebuggerUrl"], max_size=None)
        self._calls = 0

    def call(self, method, **parameters):
        self._calls += 1
        request = {"id": self._calls, "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        while (answer := json.loads(self._socket.recv(TIMEOUT_S))).get("id") != self._calls:
            pass
        return answer["result"]

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self):
        return self.evaluate("document.body.innerText")

    def click(self, label):
        find = f"[...document.querySelectorAll('button')].find(b => b.innerText == '{label}')"
        wait_until(lambda: self.evaluate(f"Boolean({find})"), f"the button {label}")
        self.evaluate(f"{find}.click()")

    def press(self, selector, key):
        self.evaluate(f"document.querySelector('{selector}').focus()")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self):
        """[H, W, 3] uint8 BGR."""
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    @contextmanager
    def only_the_scene(self):
        """Within it the page shows the robot's scene and nothing else."""
        self.evaluate(
            "var only = document.head.appendChild(document.createElement('style'));"
            f"only.textContent = '{ONLY_THE_SCENE}'"
        )
        yield
        self.evaluate("only.remove()")

    def close(self):
        self._socket.close()


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
    command = [browser, *OPTIONS, f"--user-data-dir={profile}", viewed[1].url]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **quiet)
    try:
        written = profile / "DevToolsActivePort"
        lines = wait_until(lambda: written.exists() and written.read_text().split(), "the browser")
        page = Page(int(lines[0]))
        wait_until(viewed[1].server.get_clients, "the page's websocket")
        wait_until(lambda: "environment" in (page.text() or ""), "the panel")
        yield page
        page.close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the command may be a script around the browser
        process.wait(TIMEOUT_S)


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


def orange_pixels(page):
    """How much is seen of the arm's joints: nothing else in the scene is so orange."""
    hue, strength, value = cv2.split(cv2.cvtColor(page.screenshot(), cv2.COLOR_BGR2HSV))
    return int(((np.abs(hue.astype(int) - 13) <= 3) & (strength > 150) & (value > 100)).sum())


def test_the_scene_and_the_panel_are_drawn(page, viewed):
    _, viewer = viewed
    with page.only_the_scene():
        wait_until(lambda: orange_pixels(page) > 1000, "the robot")
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
        wait_until(lambda: orange_pixels(page) == 0, "the robot to vanish")
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
