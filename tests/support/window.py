"""A dashboard as a viewer has it: the server of this process, and a real browser without a network that keeps what it complains of."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import pytest

from dashboard.access.guard import COOKIE, pass_of
from dashboard.serving import server_of
from dashboard.settings import Settings
from tests.support.browser import NAMES

TOKEN = "a token of the tests"
WIDE, NARROW = (1280, 900), (360, 740)


@contextmanager
def serving(store: str, **settings: Any) -> Iterator[str]:
    """The address of a dashboard of `store`, until the end of the block."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = server_of(Settings(store, TOKEN, **settings))
    thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Window:
    """A browser, and all that its pages said on their consoles or were refused."""

    browser: Any
    complaints: list[str] = field(default_factory=list)

    @contextmanager
    def at(self, address: str, path: str = "/", size: tuple[int, int] = WIDE, **options: Any) -> Iterator[Any]:
        """A fresh page of a viewer who came by the address that the server printed."""
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        page.on("requestfailed", lambda asked: self._note("failed", f"{asked.url} {asked.failure}"))
        page.on("request", lambda asked: asked.url.startswith((address, "data:", "blob:")) or self._note("elsewhere", asked.url))
        try:
            context.add_cookies([{"name": COOKIE, "value": pass_of(TOKEN), "url": address}])
            page.goto(f"{address}{path}")
            yield page
        finally:
            context.close()

    def _note(self, kind: str, said: str) -> None:
        driver = "GL Driver Message" in said  # of the software renderer: taking pictures is slow
        if kind in ("error", "warning", "failed", "elsewhere") and not driver and "net::ERR_ABORTED" not in said:
            self.complaints.append(f"{kind}: {said}")


@contextmanager
def window(*flags: str, webgl: bool = True) -> Iterator[Window]:
    """Skips the test where there is no browser, or nothing to drive it with.

    To be left before other tests go on: while it is open, this thread has an event loop that runs.
    """
    driver = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    graphics = "--enable-unsafe-swiftshader" if webgl else "--disable-3d-apis"
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", graphics, *flags], env={**os.environ, "TMPDIR": "/tmp"}
        )
        try:
            yield Window(browser)
        finally:
            browser.close()
