"""The page in a real browser: a job from its form to its report, a picture tried, a token asked for; on a phone too."""

from __future__ import annotations

import shutil

import httpx
import pytest

from capfilt import catalog
from capfilt.recipe import Recipe, load_config, to_json
from capfilt.service import access
from capfilt.service.config import JobsConfig, ServiceConfig
from capfilt.service.form import recipe_form

from .conftest import serving

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
browsing = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the page in")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page").resolve()
    (folder / "source").mkdir()
    (folder / "out").mkdir()
    for file in sorted((catalog.sample() / "images").glob("*.jpg"))[:8]:
        shutil.copy(file, folder / "source")
    return folder


@pytest.fixture(scope="module")
def token(home):
    opens = {"sources": (str(home / "source"),), "dests": (str(home / "out"),)}
    return access.new(home / "tokens.yaml", "ann", roles=("online", "jobs"), **opens)


@pytest.fixture(scope="module")
def address(embedded, home, token):
    jobs = JobsConfig(state=str(home / "state"), runner="local", poll_s=0.1)
    with serving(ServiceConfig(runner="local", tokens=str(home / "tokens.yaml"), jobs=jobs)) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1200, "light"), (390, "dark")], ids=["desktop", "phone"])
def page(request, chromium, address):
    """A page at a width, which must stay within it, ask no other host and run without an error of its script."""
    width, scheme = request.param
    context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    errors, hosts = [], set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
    page.on("request", lambda asked: hosts.add("/".join(asked.url.split("/")[:3])) if asked.url[:4] == "http" else None)
    page.width = width
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert errors == []
    assert hosts == {address}


def enter(page, token):
    page.wait_for_selector("dialog[open]")
    page.fill("#token", token)
    page.click("dialog button")


@browsing
def test_a_job_from_its_form_to_its_report(page, address, home, token):
    page.goto(f"{address}/#/new")
    enter(page, "capfilt_wrong")
    page.wait_for_selector("#ask-why:has-text('This token is unknown')")
    enter(page, token)
    page.wait_for_selector("form [name=dest]")
    page.fill("[name='source.path']", "/etc")
    page.fill("[name=dest]", str(home / f"out/{page.width}"))
    page.click("summary:has-text('plan')")
    page.fill("[name='plan.part_rows']", "none at all")
    page.click("main form button")
    page.wait_for_selector("[data-name='plan.part_rows'].wrong")
    page.fill("[name='plan.part_rows']", "2")
    page.click("main form button")
    page.wait_for_selector("[data-name='source.path'].wrong")
    assert "does not open" in page.text_content(".notice")
    page.fill("[name='source.path']", str(home / "source"))
    page.click("main form button")
    page.wait_for_selector(".state.done", timeout=60_000)
    figures = dict(
        page.eval_on_selector_all(
            ".figures > div", "all => all.map(one => [...one.children].map(part => part.textContent))"
        )
    )
    assert (figures["rows in"], figures["parts"]) == ("8", "4 / 4")
    page.click("text=Show the report")
    page.frame_locator("iframe").get_by_role("heading", name="pictures kept").wait_for()
    assert page.frame_locator("iframe").locator("body").evaluate("() => origin") == "null"
    page.click("text=Show the log")
    page.wait_for_selector("pre:has-text('done')")
    page.click("nav a:has-text('Jobs')")
    page.wait_for_selector(f".jobs .name:has-text('{home}/out/{page.width}')")


@browsing
def test_a_picture_is_tried(page, address, files, token):
    page.goto(f"{address}/#/try")
    enter(page, token)
    page.set_input_files("#file", str(files[0]))
    page.fill("#texts", "a red bicycle\n<img src=x onerror=alert(1)>")
    page.click("main form button")
    page.wait_for_selector(".verdicts li:nth-child(3)")
    told = page.locator(".verdicts p").all_text_contents()
    assert any("<img src=x onerror=alert(1)>" in text for text in told), "as text"
    assert page.locator(".verdicts img").count() == 0
    assert page.locator(".verdicts small:has-text('match')").count() == 3
    page.fill("#url", "http://127.0.0.1:1/x.jpg")
    page.click("main form button")
    page.wait_for_selector(".notice")
    assert "refused address" in page.text_content(".notice")


def test_the_page_is_whole_in_one_answer_and_may_load_nothing(address):
    answer = httpx.get(address)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "%" + "SCRIPT%" not in answer.text
    assert "http://" not in answer.text.replace("https://", "").replace("s3://", "")
    frame = httpx.get(f"{address}/report").headers["content-security-policy"]
    assert frame.startswith("sandbox allow-scripts; default-src 'none'")


def test_the_form_has_every_field_at_its_default():
    given = {"source.path": "/data"}
    for section in recipe_form().sections:
        for field in section.fields:
            assert field.about, field.name
            assert bool(field.choices) == (field.kind == "choice")
            if not field.needed:
                given[field.name] = field.default
    assert load_config(Recipe, given=given) == load_config(Recipe, given={"source.path": "/data"})
    assert to_json(load_config(Recipe, given=given))["source"]["path"] == "/data"
