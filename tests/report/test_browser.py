"""The page in a real browser: our script runs, a stranger's does not, nothing is loaded, nothing sticks out."""

import asyncio
import json
import re
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from capfilt.records import table_of
from capfilt.report.page import write_report
from capfilt.report.trial import Speed, looked_at, render
from capfilt.shards.rule import Rule
from capfilt.storage import Store

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the report in")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]


class Tab:
    """One tab, driven over the browser's own debugging protocol on the loopback."""

    def __init__(self, socket):
        self._socket = socket
        self._sent = 0
        self.events = []

    async def call(self, method, **params):
        self._sent += 1
        number = self._sent
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=30)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    async def js(self, expression):
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def open(self, url):
        await self.call("Page.enable")
        await self.call("Network.enable")
        await self.call("Log.enable")
        await self.call("Page.navigate", url=url)
        while await self.js("document.readyState + ' ' + location.href") != f"complete {url}":
            await asyncio.sleep(0.05)

    async def press(self, key, text=""):
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "")

    def requested(self):
        events = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["request"]["url"] for event in events]


@asynccontextmanager
async def tab():
    with tempfile.TemporaryDirectory(prefix="capfilt-chromium-", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={folder}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            port = None
            while port is None:
                line = await asyncio.wait_for(process.stderr.readline(), 60)
                assert line, "chromium ended before it listened"
                port = re.search(rb"ws://127.0.0.1:(\d+)/", line)
            async with aiohttp.ClientSession() as session:
                targets = await session.get(f"http://127.0.0.1:{int(port[1])}/json/list")
                pages = [t for t in json.loads(await targets.text()) if t["type"] == "page"]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Tab(socket)
                    await socket.send_json({"id": 0, "method": "Browser.close"})
        finally:
            try:
                await asyncio.wait_for(process.communicate(), 10)
            except TimeoutError:
                process.kill()
                await process.communicate()


def in_browser(visit):
    async def run():
        async with tab() as page:
            await visit(page)

    asyncio.run(run())


SHOWN = "[...document.querySelectorAll('.card')].filter(c => c.offsetParent !== null).length"


def test_the_page_works_by_keyboard_runs_no_strangers_script_and_loads_nothing(store, web_run):
    path = Path(write_report(store))

    async def visit(page):
        await page.call("Page.addScriptToEvaluateOnNewDocument", source="window.alert = m => { window.pwned = m };")
        await page.open(path.as_uri())
        whole = await page.js(SHOWN)
        assert whole > 50
        assert await page.js("document.getElementById('count').textContent") == f"{whole} of {whole} shown"
        assert await page.js("document.images.length") > 50
        assert await page.js("[...document.images].every(i => i.complete && i.naturalWidth > 0)")

        await page.press("/", "/")
        assert await page.js("document.activeElement.id") == "search"
        await page.call("Input.insertText", text="red tree")
        found = await page.js(SHOWN)
        assert 0 < found < whole
        assert await page.js("document.getElementById('count').textContent") == f"{found} of {whole} shown"
        await page.press("Escape")
        assert await page.js(SHOWN) == whole

        await page.js("document.querySelector('input[value=nothing]').click()")
        assert 0 < await page.js(SHOWN) < whole
        await page.js(
            "const s = document.getElementById('threshold'); s.value = 100; s.dispatchEvent(new Event('input'))"
        )
        assert (await page.js("document.querySelector('.readout .web strong').textContent")) == "100%"

        assert await page.js("window.pwned ?? null") is None
        assert await page.js("document.scripts.length") == 1
        assert {url.split(":")[0] for url in page.requested()} <= {"file", "data"}
        assert sum(url.startswith("file") for url in page.requested()) == 1
        # A refused inline script or style would be told here.
        assert [event for event in page.events if event.get("method") == "Log.entryAdded"] == []

    in_browser(visit)


def test_nothing_sticks_out_on_a_phone_or_a_desk_and_unescaped_scripts_would_not_run(store, web_run, kit):
    path = Path(write_report(store))
    broken = path.with_name("broken.html")
    broken.write_text(path.read_text().replace("<main>", "<main><script>window.pwned = 1</script>"))
    bare = Store(f"{store.url}-without-filter")
    kit["commit"](bare, {0: kit["rows"](20, filtered=False)}, filtered=False)

    async def visit(page):
        for width in (360, 1280):
            await page.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
            )
            await page.open(path.as_uri())
            assert await page.js("document.documentElement.scrollWidth") <= width
            out = "[...document.querySelectorAll('.card *')].filter(e => e.getBoundingClientRect().right > innerWidth)"
            assert await page.js(f"{out}.length") == 0

        await page.open(broken.as_uri())
        assert await page.js("document.scripts.length") == 2
        assert await page.js("window.pwned ?? null") is None

        await page.call("Runtime.enable")
        await page.open(Path(write_report(bare)).as_uri())
        assert await page.js("document.getElementById('tools').hidden") is False
        assert [event for event in page.events if event.get("method") == "Runtime.exceptionThrown"] == []

    in_browser(visit)


def test_the_slider_of_a_preview_moves_verdicts_and_what_is_shown(tmp_path, kit):
    rows = kit["rows"](40, lost=0.2)
    for row in rows:
        row["drop"] = None if row["drop"] == "no_caption_kept" else row["drop"]
    looked = looked_at(
        table_of(rows),
        rule=Rule(threshold=0.5),
        source="corpus.parquet",
        rows=None,
        exact=False,
        drawn_from="all rows",
        seed=0,
        models={"captioner": "a", "filter": "b"},
        speed=Speed(wall_s=9, fetch_s=0.1, image_s=0.2, reached=0.8),
    )
    path = tmp_path / "preview.html"
    path.write_text(render(looked))
    kept = {line.threshold: line.pictures for line in looked.lines}

    async def visit(page):
        await page.call("Runtime.enable")
        for width in (360, 1280):
            await page.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
            )
            await page.open(path.as_uri())
            assert await page.js("document.documentElement.scrollWidth") <= width
        for threshold in (0.5, 0.9, 0.1):
            await page.js(f"slider.value = {threshold}; slider.dispatchEvent(new Event('input', {{bubbles: true}}))")
            told = await page.js("document.getElementById('headline').textContent")
            assert told == f"{kept[threshold]} of {looked.seen} kept"
            await page.js("document.querySelector('input[value=kept]').click()")
            assert await page.js(SHOWN) == kept[threshold]
            await page.js("document.querySelector('input[value=all]').click()")
        await page.press("/", "/")
        assert await page.js("document.activeElement.id") == "search"
        await page.js("slider.focus()")
        before = await page.js("slider.value")
        await page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", windowsVirtualKeyCode=39)
        assert float(await page.js("slider.value")) > float(before)
        assert [event for event in page.events if event.get("method") == "Runtime.exceptionThrown"] == []
        assert [event for event in page.events if event.get("method") == "Log.entryAdded"] == []

    in_browser(visit)
