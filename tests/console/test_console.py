"""The console of the examples in a real browser: it is live, it shows refusals, and a changed limit takes effect."""

import sys
import time
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients"))
from conftest import PATIENCE, TARGET, run  # noqa: E402

MODELS = "GET /v1/models"


@pytest.fixture
def console(tmp_path):
    """A server of which nothing was used."""
    yield from run("console", tmp_path / "log")


@pytest.fixture(scope="session")
def browser():
    options = webdriver.ChromeOptions()
    for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = "/usr/bin/chromium"
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, console):
    browser.get(f"{console.url}/console")
    WebDriverWait(browser, PATIENCE).until(lambda _: browser.find_elements(By.CSS_SELECTOR, "#routes tr"))
    browser.get_log("browser")
    yield browser
    # Answers that are no success are no fault of the page.
    entries = [entry["message"] for entry in browser.get_log("browser")]
    assert [entry for entry in entries if "Failed to load resource" not in entry] == []


def row(page, route):
    return page.find_element(By.CSS_SELECTOR, f'tr[data-route="{route}"]')


def cell(page, route, label) -> float:
    return float(row(page, route).find_element(By.CSS_SELECTOR, f'[data-label="{label}"]').text or 0)


def send_ten(page, route):
    row(page, route).find_element(By.TAG_NAME, "button").click()


def counted(page, route) -> dict:
    """What the server itself says of a route."""
    script = """
        const done = arguments[1];
        const events = new EventSource("/console/events");
        events.onmessage = (event) => {
          events.close();
          done(JSON.parse(event.data).routes.find((counted) => counted.route === arguments[0]));
        };
    """
    return page.execute_async_script(script, route)


def until(page, what):
    WebDriverWait(page, PATIENCE, poll_frequency=0.05).until(lambda _: what())


def save(page, route, rate, burst) -> str:
    """Changes a limit by the form, and returns what is said of it."""
    Select(page.find_element(By.ID, "route")).select_by_visible_text(route)
    for field, value in [("rate", rate), ("burst", burst)]:
        found = page.find_element(By.ID, field)
        found.clear()
        found.send_keys(value)
    said = page.find_element(By.ID, "said")
    page.execute_script("arguments[0].textContent = ''", said)
    page.find_element(By.CSS_SELECTOR, "#change button").click()
    until(page, lambda: said.text)
    return said.text


def test_a_refusal_is_shown_within_two_seconds(page):
    until(page, lambda: page.find_element(By.ID, "link").text == "live")
    assert "10 in 1s, burst 5" in row(page, MODELS).text
    # So slow that nothing comes back while the browser works.
    save(page, MODELS, "0.001", "5")
    took = []
    # A machine that does other things shows it later now and then.
    while not took or (min(took) >= 2.0 and len(took) < 10):
        until(page, lambda: cell(page, MODELS, "Refused/s") == 0)
        begin = time.monotonic()
        send_ten(page, MODELS)
        until(page, lambda: cell(page, MODELS, "Refused/s") > 0)
        took.append(time.monotonic() - begin)
    assert min(took) < 2.0, took
    until(page, lambda: counted(page, MODELS)["refused"] == 10 * len(took) - 5)
    assert counted(page, MODELS)["admitted"] == 5


def test_a_changed_limit_takes_effect(page):
    said = save(page, MODELS, "0.001", "8")
    assert said.startswith("Saved: route `GET /v1/models`")
    assert ": 10 in 1s, burst 5 => 1 in 1000s, burst 8" in said
    # The route has a limit of its own now, and a limit is named after its route.
    assert said.endswith(", name: default => get_v1_models")
    send_ten(page, MODELS)
    until(page, lambda: counted(page, MODELS)["refused"] == 2)
    assert counted(page, MODELS)["admitted"] == 8
    # Two more, and nothing of the eight is given back.
    save(page, MODELS, "0.001", "10")
    send_ten(page, MODELS)
    until(page, lambda: counted(page, MODELS)["refused"] == 10)
    assert counted(page, MODELS)["admitted"] == 10
    until(page, lambda: "0 of 10" in row(page, MODELS).text)


def test_what_cannot_be_read_is_said(page):
    said = save(page, MODELS, "fast", "8")
    assert said.startswith("Not saved: ") and "`fast` is not a rate" in said
    assert "10 in 1s, burst 5" in row(page, MODELS).text


def test_slots_and_lines_are_seen(page):
    route = "POST /v1/chat/completions"
    save(page, route, "1000", "1000")
    send_ten(page, route)
    until(page, lambda: row(page, route).find_element(By.CSS_SELECTOR, '[data-label="In flight"]').text == "3")
    assert cell(page, route, "In line") >= 1


def test_it_is_used_by_keyboard(page):
    body = page.find_element(By.TAG_NAME, "body")
    for _ in range(20):
        body.send_keys(Keys.TAB)
        focused = page.switch_to.active_element
        if focused.get_attribute("aria-label") == f"Send ten requests to {MODELS}":
            break
        body = focused

    def refused() -> bool:
        focused.send_keys(Keys.ENTER)
        return counted(page, MODELS)["refused"] > 0

    until(page, refused)
    # On from there to the form, whose fields have names.
    names = []
    for _ in range(20):
        page.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.switch_to.active_element
        names.append(focused.accessible_name)
        if focused.accessible_name == "Save":
            break
    assert names[-4:] == ["Route", "Rate", "Burst", "Save"]


def test_nothing_comes_from_elsewhere(page, console):
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    loaded = page.execute_script(script)
    assert all(name.startswith((console.url, "data:")) for name in loaded), loaded


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_in_both_themes(page, theme, width):
    """Nothing is cut off or wider than the window. The pictures are there to be looked at."""
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        send_ten(page, "POST /v1/chat/completions")

        def refused() -> bool:
            send_ten(page, MODELS)
            return cell(page, MODELS, "Refused/s") > 0

        until(page, refused)
        assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 27, 42)"}[theme]
        pictures = TARGET / "console"
        pictures.mkdir(parents=True, exist_ok=True)
        page.save_screenshot(str(pictures / f"{theme}-{width}.png"))
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {})
