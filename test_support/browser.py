"""A page in a headless browser of the Chromium family, through the Chrome DevTools Protocol."""

import base64
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import connect

from test_support.waiting import wait_until

TIMEOUT_S = 120.0
# three.js marks its canvas; what lies above it, such as the browser's word on software rendering,
# is as large as the machine's fonts make it
_ONLY_THE_SCENE = "body *{visibility:hidden} canvas[data-engine]{visibility:visible}"
# without a display, a GPU or the network; as root and in containers
_OPTIONS = (
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
    """One page; `port` is that of the browser's debugger."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=TIMEOUT_S) as answer:
            targets = json.load(answer)
        [target] = [target for target in targets if target["type"] == "page"]
        self._socket = connect(target["webSocketDebuggerUrl"], max_size=None)
        self._calls = 0

    def call(self, method: str, **parameters: Any) -> Any:
        """Calls a method of the protocol and returns its result."""
        self._calls += 1
        request = {"id": self._calls, "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        while (answer := json.loads(self._socket.recv(TIMEOUT_S))).get("id") != self._calls:
            pass
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        """All words of the page."""
        return self.evaluate("document.body?.innerText") or ""

    def click(self, label: str) -> None:
        """Clicks the button with this label, once it is there."""
        find = f"[...document.querySelectorAll('button')].find(b => b.innerText == '{label}')"
        wait_until(lambda: self.evaluate(f"Boolean({find})"), f"the button {label}")
        self.evaluate(f"{find}.click()")

    def press(self, selector: str, key: str) -> None:
        """Presses a key in an element."""
        self.evaluate(f"document.querySelector('{selector}').focus()")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 BGR."""
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return image.astype(np.uint8)

    @contextmanager
    def only_the_scene(self) -> Iterator[None]:
        """Within it the page shows the robot's scene and nothing else."""
        self.evaluate(
            "var only = document.head.appendChild(document.createElement('style'));"
            f"only.textContent = '{_ONLY_THE_SCENE}'"
        )
        yield
        self.evaluate("only.remove()")

    def orange_pixels(self) -> int:
        """How much is seen of the arm's joints: nothing else in the scene is so orange."""
        hue, strength, value = cv2.split(cv2.cvtColor(self.screenshot(), cv2.COLOR_BGR2HSV))
        near = np.abs(hue.astype(int) - 13) <= 3
        return int((near & (strength > 150) & (value > 100)).sum())

    def close(self) -> None:
        """Closes the connection to the browser."""
        self._socket.close()


@contextmanager
def open_page(browser: str, url: str, profile: Path) -> Iterator[Page]:
    """A browser that shows a page.

    Args:
        browser: Its path.
        url: Of the page.
        profile: An empty folder of its own.
    """
    command = [browser, *_OPTIONS, f"--user-data-dir={profile}", url]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        written = profile / "DevToolsActivePort"
        wait_until(lambda: written.exists() and written.read_text(), "the browser")
        page = Page(int(written.read_text().split()[0]))
        yield page
        page.close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the command may be a script around the browser
        process.wait(TIMEOUT_S)
