"""The browser client in a real browser: what the gateway sees of a page's life, and what the page makes of it.

One browser for all cases, since a start costs as much as they do. Each case says what the user or the world
does; asserted are the cause and the close code in the gateway's event log, and how long it took.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest

from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer
from reference_server.events import Cause, Event, EventKind
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.sessions.records import session_id_of
from tests.browser.cdp import Browser, Page, browser, find_chromium
from tests.reference_server.gateways import Running, run, running, until
from tests.support import missing

pytestmark = [pytest.mark.real, pytest.mark.alone]

# A suspicion [1.4, 1.9) s after a silent death.
POLICY = LivenessPolicy(
    heartbeat_interval=0.5, heartbeat_timeout=0.4, max_failures=3, resume_window=10.0, session_timeout=None
)
ANSWER_S = 0.05  # a page's answer to a heartbeat: one that was on its way counts from before the fault
STATE = "document.getElementById('state')?.dataset.state"
ORDERLY_S = 1.0  # what the claims for an orderly close and a refresh say
# How often a chain of timers of 10 ms comes round in two seconds.
TIMER_TURNS = """new Promise((done) => {
  let turns = 0;
  const began = performance.now();
  const turn = () => {
    turns += 1;
    if (performance.now() - began > 2000) done(turns); else setTimeout(turn, 10);
  };
  turn();
})"""
UNNAMED = """[...document.querySelectorAll("input, button, ul, ol, section")].filter((element) =>
  !element.labels?.length && !element.textContent.trim() && !element.getAttribute("aria-labelledby")
).map((element) => element.id)"""


class Cases:
    """A gateway, a browser, and the time of a case's beginning."""

    def __init__(self, it: Running, chromium: Browser) -> None:
        self.it = it
        self.chromium = chromium
        self.began_s = 0.0

    async def play(self, case: Callable[[Cases, Page], Awaitable[None]], page: Page) -> None:
        print(f"\n{case.__name__}: ", end="")
        await case(self, page)

    async def log_in(self, user_id: str) -> Page:
        """Open a tab and log in as a person does, with a code; a user has an origin, and so a storage, alone."""
        page = await self.chromium.open(f"http://{user_id}.localhost:{self.it.http_port}/")
        await self.fill_in(page, user_id)
        return page

    async def fill_in(self, page: Page, user_id: str) -> None:
        await page.until(STATE, "out")
        await page.run(f"document.getElementById('user').value = {user_id!r}")
        await page.run("document.getElementById('ask').click()")
        await page.until("document.getElementById('code').value.length", 6)
        await page.run("document.getElementById('login').requestSubmit()")
        await page.until(STATE, "online")

    async def token_of(self, page: Page) -> str:
        token: str = orjson.loads(await page.run("localStorage.getItem('session')"))["token"]
        return token

    async def session_of(self, page: Page) -> str:
        return session_id_of(await self.token_of(page))

    def begin(self) -> None:
        self.began_s = self.it.now_s()

    def since(self, kind: EventKind, session_id: str) -> list[Event]:
        return [e for e in self.it.events(kind, session_id) if e.time_s >= self.began_s]

    async def decided(self, session_id: str) -> tuple[str, int | None, float]:
        """Wait for the end of the connection; return cause, close code, and seconds since the beginning."""
        await until(lambda: self.since(EventKind.SOCKET_CLOSED, session_id), "its end", 10)
        (event,) = self.since(EventKind.SUSPECTED, session_id)
        took_s = event.time_s - self.began_s
        print(f"{event.cause} {event.detail.get('code', '')} after {took_s:.3f} s")
        return event.cause, event.detail.get("code"), took_s

    async def resumed(self, session_id: str) -> None:
        await until(lambda: self.since(EventKind.CONNECTED, session_id), "it comes back", 10)
        (event,) = self.since(EventKind.CONNECTED, session_id)
        assert event.detail["resumed"]

    def assert_in_range(self, took_s: float, effect_s: float) -> None:
        """Check a heartbeat's latency: the range of its formula, and how long the fault took to be made."""
        lo_s, hi_s = POLICY.detection_range_s or (0.0, 0.0)
        slack_s = ANSWER_S + 2 * self.it.lag_s()
        assert lo_s - slack_s <= took_s <= hi_s + effect_s + slack_s


async def watching(cases: Cases, page: Page) -> None:
    """A user watched shows as online; everything to be used has a name."""
    await page.run("document.getElementById('peer').value = 'peer'")
    await page.run("document.getElementById('watch').requestSubmit()")
    await page.until("document.getElementById('log').innerText.includes('watching 1')", True)
    await cases.it.join("peer", live=True)
    await page.until("document.getElementById('peers').innerText", "peer: online")
    assert await page.run(UNNAMED) == []


async def a_reload(cases: Cases, page: Page) -> None:
    """Closes in order and resumes; who watches is not told."""
    session_id = await cases.session_of(page)
    watcher = await cases.it.join("watcher")
    await watcher.send(type="watch", user_ids=["ann"])
    await watcher.receive()
    there = await watcher.receive()
    assert (there["type"], there["user_id"]) == ("online", "ann")
    watcher.live()
    cases.begin()
    await page.call("Page.reload")
    cause, code, took_s = await cases.decided(session_id)
    assert (cause, code) == (Cause.CLOSE_FRAME, 1000)
    assert took_s < ORDERLY_S
    await cases.resumed(session_id)
    await page.until(STATE, "online")
    assert watcher.told == []


async def away_and_back(cases: Cases, page: Page) -> None:
    """Closes in order; the back-forward cache gives the page back, and it resumes."""
    session_id = await cases.session_of(page)
    cases.begin()
    await page.call("Page.navigate", url="about:blank")
    cause, code, took_s = await cases.decided(session_id)
    assert (cause, code) == (Cause.CLOSE_FRAME, 1000)
    assert took_s < ORDERLY_S
    await page.until("location.href", "about:blank")  # its frame may be a new one
    history = await page.call("Page.getNavigationHistory")
    before = history["entries"][history["currentIndex"] - 1]["id"]
    await page.call("Page.navigateToHistoryEntry", entryId=before)
    await cases.resumed(session_id)


async def taken_over(cases: Cases, page: Page) -> None:
    """A newer connection of the session: the page says so and does not fight for it."""
    await cases.it.join("ann", await cases.token_of(page), live=True)
    await page.until(STATE, "elsewhere")
    await page.run("document.getElementById('again').click()")
    await page.until(STATE, "online")


async def two_tabs(cases: Cases, page: Page) -> None:
    """The second finds the session and takes the connection over; a logout in it is one of the first, too."""
    other = await cases.chromium.open(f"http://ann.localhost:{cases.it.http_port}/")
    await other.until(STATE, "online")
    await page.until(STATE, "elsewhere")
    await other.run("document.getElementById('logout').click()")
    await page.until(STATE, "out")
    assert "another tab" in await page.run("document.getElementById('refusal').textContent")
    assert await page.run("localStorage.getItem('session')") is None
    await other.close()
    await cases.fill_in(page, "ann")


async def offline_and_online(cases: Cases, page: Page) -> None:
    """Its connection is cut while the device is offline: it is back as soon as that is over, whatever its back-off."""
    session_id = await cases.session_of(page)
    cases.begin()
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await page.call("Network.enable")
    await page.call("Network.emulateNetworkConditions", **offline)
    (held,) = [c for c in cases.it.gateway.live.values() if c.record and c.record.session_id == session_id]
    held.transport.abort()
    await page.until(STATE, "waiting")
    await page.run("document.getElementById('log').replaceChildren()")
    await page.call("Network.emulateNetworkConditions", **offline | {"offline": False})
    await page.until("document.getElementById('log').innerText.includes('this device is online')", True)
    await cases.resumed(session_id)
    await page.until(STATE, "online")


async def a_navigation_that_is_called_off(cases: Cases, page: Page) -> None:
    """`beforeunload` closes in order; a page that stays after all, as for a download, is back in a second."""
    session_id = await cases.session_of(page)
    cases.begin()
    await page.run("dispatchEvent(new Event('beforeunload'))")
    cause, code, _ = await cases.decided(session_id)
    assert (cause, code) == (Cause.CLOSE_FRAME, 1000)
    await cases.resumed(session_id)


async def a_stale_session(cases: Cases, page: Page) -> None:
    """A page that comes back with an id that nobody knows forgets it and shows the form."""
    await cases.it.http("POST", "/user/logout", {"token": await cases.token_of(page)})
    await page.until(STATE, "out")
    await page.run('localStorage.setItem(\'session\', \'{"token":"x","user_id":"ann"}\')')
    await page.call("Page.reload")
    await page.until("localStorage.getItem('session') === null", True)
    await page.until("document.getElementById('refusal')?.textContent.length > 0", True)
    assert await page.run("document.getElementById('login').hidden") is False
    assert cases.it.gateway.counters.value("refusals_total", code="session_unknown") == 1


async def closed_tab(cases: Cases, page: Page) -> None:
    """Closes in order."""
    session_id = await cases.session_of(page)
    cases.begin()
    await page.close()
    cause, code, took_s = await cases.decided(session_id)
    assert (cause, code) == (Cause.CLOSE_FRAME, 1000)
    assert took_s < ORDERLY_S


async def hidden_tab(cases: Cases, hidden: Page) -> None:
    """Its timers are throttled, and yet it misses no heartbeat: no timer of the page takes part."""
    session_id = await cases.session_of(hidden)
    assert await hidden.run("document.visibilityState") == "hidden"
    cases.begin()
    turns = await hidden.run(TIMER_TURNS)
    print(f"{turns} turns of a timer of 10 ms in 2 s")
    assert turns < 20
    assert cases.since(EventKind.HEARTBEAT_MISSED, session_id) == []
    assert cases.since(EventKind.SUSPECTED, session_id) == []


async def frozen_tab(cases: Cases, page: Page) -> None:
    """Its scripts stand still while the browser lives: only the heartbeat sees that."""
    session_id = await cases.session_of(page)
    cases.begin()
    began_s = time.monotonic()
    await page.call("Page.setWebLifecycleState", state="frozen")
    effect_s = time.monotonic() - began_s
    cause, code, took_s = await cases.decided(session_id)
    assert (cause, code) == (Cause.HEARTBEAT, None)
    cases.assert_in_range(took_s, effect_s)
    await page.call("Page.setWebLifecycleState", state="active")
    await cases.resumed(session_id)


async def stopped_browser(cases: Cases, page: Page) -> None:
    """SIGSTOP: the kernel acknowledges, nobody answers."""
    session_id = await cases.session_of(page)
    cases.begin()
    began_s = time.monotonic()
    cases.chromium.send_signal(signal.SIGSTOP)
    effect_s = time.monotonic() - began_s
    cause, code, took_s = await cases.decided(session_id)
    cases.chromium.send_signal(signal.SIGCONT)
    assert (cause, code) == (Cause.HEARTBEAT, None)
    cases.assert_in_range(took_s, effect_s)
    await cases.resumed(session_id)


async def killed_browser(cases: Cases, page: Page) -> None:
    """SIGKILL: not silent at all, its kernel closes the socket.

    All its processes at once, as by the out-of-memory killer's group kill: stopped first, so that none outlives
    another. One that does closes in order, with 1001.
    """
    session_id = await cases.session_of(page)
    cases.begin()
    cases.chromium.send_signal(signal.SIGSTOP)
    cases.chromium.send_signal(signal.SIGKILL)
    cause, code, took_s = await cases.decided(session_id)
    assert cause in (Cause.TCP_RESET, Cause.TCP_FIN)
    assert code is None
    assert took_s < ORDERLY_S


def test_a_page_s_life_as_the_gateway_sees_it(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    program = find_chromium()
    if program is None:
        missing("needs Chromium: apt install chromium")

    async def scenario(children: Children) -> None:
        async with (
            running(private_redis.url, key_prefix, tmp_path, POLICY) as it,
            browser(program, children, tmp_path) as chromium,
        ):
            cases = Cases(it, chromium)
            page = await cases.log_in("ann")
            for case in (
                *(watching, a_reload, away_and_back, taken_over, two_tabs, offline_and_online),
                *(a_navigation_that_is_called_off, a_stale_session),
            ):
                await cases.play(case, page)
            await cases.play(closed_tab, await cases.log_in("bob"))
            back = await cases.log_in("back")
            front = await cases.log_in("front")
            await cases.play(hidden_tab, back)
            await cases.play(frozen_tab, back)
            await cases.play(stopped_browser, front)
            await cases.play(killed_browser, front)

    with Children() as children:
        run(scenario(children))
