"""A headless Chromium, driven through its DevTools protocol: as much of it as the tests here need.

From a program on the PATH to pages that load, run scripts and close, and processes that stop and die. All
processes of the browser are children of this one and end with it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from harness.real.processes.children import Child, Children
from tests.reference_server.gateways import until

__all__ = ["Browser", "BrowserError", "Page", "browser", "find_chromium"]

_ANSWER_S = 20.0


class BrowserError(RuntimeError):
    """The browser says no, or a script in a page threw."""


def find_chromium() -> str | None:
    """Return the path of a Chromium; None: there is none on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, target_id: str, session_id: str) -> None:
        self._browser = browser
        self._target_id = target_id
        self._session_id = session_id

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol in this tab."""
        return await self._browser.call(method, session_id=self._session_id, **params)

    async def run(self, script: str) -> Any:
        """Evaluate an expression, wait for a promise, return the value.

        Raises:
            BrowserError: it threw.
        """
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def until(self, script: str, wanted: Any, deadline_s: float = 10.0) -> None:
        """Look every 20 ms until an expression has a value; a page that is just loading has none."""
        seen: Any = None
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while seen != wanted:
                    with suppress(BrowserError):
                        seen = await self.run(script)
                    await asyncio.sleep(0.02)
        assert seen == wanted, f"not within {deadline_s:g} s: {script} is {seen!r}, not {wanted!r}"

    async def show(self) -> None:
        """Bring the tab to the front; the one that was there is hidden from now on."""
        await self._browser.call("Target.activateTarget", targetId=self._target_id)

    async def close(self) -> None:
        """Close the tab, as its user does."""
        await self._browser.call("Target.closeTarget", targetId=self._target_id)


class Browser:
    """A browser that runs; `browser` starts one."""

    def __init__(self, child: Child, socket: ClientConnection) -> None:
        self._child = child
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def open(self, url: str) -> Page:
        """Open a tab in front of the others."""
        target = await self.call("Target.createTarget", url=url)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        return Page(self, target["targetId"], attached["sessionId"])

    def send_signal(self, number: signal.Signals) -> None:
        """Signal all its processes, the one that started the others first."""
        main = psutil.Process(self._child.pid)
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    async def call(self, method: str, *, session_id: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol.

        Raises:
            BrowserError: the browser refuses, or is gone.
            TimeoutError: it does not answer.
        """
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        if session_id is not None:
            message["sessionId"] = session_id
        await self._socket.send(json.dumps(message))
        return await asyncio.wait_for(answer, _ANSWER_S)

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self._socket:
                message = json.loads(text)
                answer = self._answers.pop(message.get("id"), None)
                if answer is None or answer.done():
                    continue
                if "error" in message:
                    answer.set_exception(BrowserError(message["error"]["message"]))
                else:
                    answer.set_result(message["result"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BrowserError("the browser is gone"))

    async def end(self) -> None:
        """Let go of it."""
        self._reader.cancel()
        self._socket.transport.abort()


@asynccontextmanager
async def browser(program: str, children: Children, folder: Path) -> AsyncIterator[Browser]:
    """Have a browser for as long as the context lasts; its profile is in the folder."""
    argv = [
        program,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-extensions",
        "--disable-component-update",
        "--disable-background-networking",
        "--disable-sync",
        "--disable-breakpad",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder / 'profile'}",
        "about:blank",
    ]
    child = children.start("chromium", argv, log=folder / "chromium.log", may_finish=True)
    children.expect_end(child)
    where = folder / "profile" / "DevToolsActivePort"
    await until(where.exists, "the browser's port", 30)
    await until(lambda: len(where.read_text().split()) == 2, "the whole of it")
    port, path = where.read_text().split()
    socket = await connect(
        f"ws://127.0.0.1:{port}{path}", ping_interval=None, max_size=None, compression=None
    )
    it = Browser(child, socket)
    try:
        yield it
    finally:
        await it.end()
        with suppress(psutil.NoSuchProcess):
            it.send_signal(signal.SIGKILL)
        children.stop(child, kill=True)
