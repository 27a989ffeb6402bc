"""Headless Chromium, driven by its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.support import needs

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEYS = {
    " ": ("Space", 32, " "),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "Home": ("Home", 36, ""),
    "End": ("End", 35, ""),
    "Tab": ("Tab", 9, ""),
}
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):  # the ones that DevTools uses
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root
    "--remote-debugging-pipe",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
)
TIMEOUT_S = 30.0
WIDTHS = (1280, 390)
"""A desk's and a phone's window, CSS px."""
_WIDEST = """[...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > innerWidth + 1).slice(0, 5)
    .map((each) => each.tagName + "." + each.className + " " + each.textContent.slice(0, 40))"""


class PageError(AssertionError):
    """A script of the page failed, or DevTools refused a command."""


class Browser:
    """A running Chromium. `open` gives pages."""

    def __init__(self, program: str, profile: Path) -> None:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        ends = [str(to_read), str(from_write)]
        flags = [*_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, *ends, program, *flags],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        self._to, self._from = os.fdopen(to_write, "wb", 0), os.fdopen(from_read, "rb", 0)
        os.set_blocking(from_read, False)
        self._count, self._buffer = 0, b""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        """End it and wait for its end."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._to.close()
        self._from.close()

    def send(self, method: str, *, session: str = "", **params: Any) -> dict[str, Any]:
        """The result of a DevTools command; events that come meanwhile are kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._to.write(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            reply = self._receive(deadline, method)
            if reply.get("id") == self._count:
                if "error" in reply:
                    raise PageError(f"{method}: {reply['error']}")
                return dict(reply["result"])
            self.events.append(reply)

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = self._from.read(1 << 20)
            if part is None:
                if time.monotonic() > deadline:
                    raise PageError(f"{method}: no reply in {TIMEOUT_S:.0f} s")
                time.sleep(0.002)
            elif not part:
                raise PageError(f"{method}: Chromium has ended")
            else:
                self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    @contextmanager
    def open(
        self, url: str, *, size: tuple[int, int] = (1280, 900), until: str = "complete"
    ) -> Iterator[Page]:
        """A page in a tab of its own.  until: the state of loading that is waited for."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.resize(size)
        reply = page.send("Page.navigate", url=url)
        if reply.get("errorText"):
            raise PageError(f"{url}: {reply['errorText']}")
        page.until(f"['{until}', 'complete'].includes(document.readyState)")
        try:
            yield page
        finally:
            self.send("Target.closeTarget", targetId=target)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.send(method, session=self._session, **params)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        result = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise PageError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, script: str, timeout_s: float = TIMEOUT_S) -> Any:
        """The first true value of an expression."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.run(script)):
            if time.monotonic() > deadline:
                raise PageError(f"{script} is not true after {timeout_s:.0f} s; {self.errors}")
            time.sleep(0.02)
        return value

    def settle(self) -> None:
        """Wait until what was changed is painted."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def resize(self, size: tuple[int, int]) -> None:
        """Set the viewport, CSS px."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=False,
        )

    def press(self, key: str, *, shift: bool = False) -> None:
        """A key, down and up, to what has the focus."""
        code, number, text = KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()), key)
        shared = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        shared["modifiers"] = 8 if shift else 0
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.send("Input.dispatchKeyEvent", **shared, **down)
        self.send("Input.dispatchKeyEvent", **shared, type="keyUp")

    def screenshot(self, selector: str = "body") -> NDArray[np.uint8]:
        """What an element looks like: RGB, uint8 (H, W, 3)."""
        box = self.run(
            f"(() => {{const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect();"
            "return {x: b.x + scrollX, y: b.y + scrollY, "
            "width: b.width, height: b.height, scale: 1}})()"
        )
        data = base64.b64decode(self.send("Page.captureScreenshot", clip=box)["data"])
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    def click(self, selector: str) -> None:
        """Click an element by script, as a person would with the mouse."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    @property
    def events(self) -> list[dict[str, Any]]:
        """What DevTools reported of this tab."""
        self.run("1")
        return [each for each in self._browser.events if each.get("sessionId") == self._session]

    @property
    def errors(self) -> list[str]:
        """Errors and warnings of the console and scripts."""
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(str(details.get("exception", {}).get("description", details)))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] == "error":
                found.append(str(params["args"]))
        return found

    @property
    def requests(self) -> list[str]:
        """Addresses of everything that was requested."""
        found = [each for each in self.events if each["method"] == "Network.requestWillBeSent"]
        return [str(each["params"]["request"]["url"]) for each in found]

    @property
    def overflow_px(self) -> int:
        """How far the page is wider than the window."""
        script = "document.documentElement.scrollWidth - window.innerWidth"
        return max(0, int(self.run(script)))


def check_page(page: Page, own: str, *, media: bool = True) -> None:
    """Neither errors nor requests that leave the page, and no sideways scrolling at any width,
    with folded parts closed and then open.

    own: what the addresses of all requests begin with.  media: whether every image was loaded.
    """
    for width, opened in itertools.product(WIDTHS, ("false", "true")):
        page.resize((width, 900))
        page.run(f"document.querySelectorAll('details').forEach((e) => {{e.open = {opened}}})")
        page.settle()
        assert page.overflow_px == 0, f"wider than {width} px: {page.run(_WIDEST)}"
    assert not page.errors
    outside = [url for url in page.requests if not url.startswith((own, "data:", "blob:"))]
    assert not outside
    if media:
        assert page.run("[...document.images].every((each) => each.naturalWidth > 0)")


def is_drawn(image: NDArray[np.uint8]) -> bool:
    """Whether an image is more than one even ground."""
    return bool(image.size) and float(image.astype(np.float64).std()) > 1.0


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own."""
    program = needs.program(*PROGRAMS, title="Chromium", install="install the package chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, Path(profile))
        try:
            yield browser
        finally:
            browser.close()
