"""Opens the page that `spandrel map` wrote in a headless Chromium and uses it as a person would.

    click.py PAGE [SCREENSHOT]

Fails at the first thing that is not as it should be.
"""

import pathlib
import re
import sys
import time

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import Select

page = pathlib.Path(sys.argv[1]).resolve()
options = webdriver.ChromeOptions()
options.binary_location = "/usr/bin/chromium"
# No sandbox: the test may run as root. No network: the page must not need any.
for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--window-size=1500,1150", "--host-resolver-rules=MAP * ~NOTFOUND"]:
    options.add_argument(flag)
options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)


def check(what, condition):
    if not condition:
        raise SystemExit(f"click.py: not so: {what}")
    print(f"  {what}")


def by(name):
    return driver.find_element(By.ID, name)


def settled(name):
    """The value once the next frame is drawn."""
    driver.execute_async_script("const d = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(d))")
    return by("map").get_attribute(f"data-{name}")


def pixels():
    settled("zoom")
    return driver.execute_script("return document.getElementById('map').toDataURL()")


def colours():
    """How many colours the picture has."""
    settled("zoom")
    return driver.execute_script("""
        const c = document.getElementById('map'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        const seen = new Set();
        for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
        return seen.size;""")


try:
    driver.set_script_timeout(20)
    driver.get(page.as_uri())
    check("the page names the program", "fragments" in by("command").text)

    parts = {e.get_attribute("data-part"): int(e.get_attribute("data-bytes"))
             for e in driver.find_elements(By.CSS_SELECTOR, "#parts li")}
    mapped = driver.execute_script(
        "return JSON.parse(document.getElementById('data').textContent).map.snapshots.at(-1).sum.mapped")
    check("the parts add up to what is mapped", sum(parts.values()) == mapped)
    check("the words say so", "add up to what is mapped" in by("words").text)
    check("there is a picture", colours() > 5)

    # Every colour is another picture, with a legend of its own.
    seen, legends = set(), set()
    for value in ["class", "occupancy", "age", "tag"]:
        Select(by("colour")).select_by_value(value)
        seen.add(pixels())
        legends.add(by("legend").text)
        check(f"coloured by {value}", settled("colour") == value and by("legend").text)
    check("four different pictures and legends", len(seen) == 4 and len(legends) == 4)
    Select(by("colour")).select_by_value("class")

    # Zoom by button, wheel and key; move by dragging.
    before = float(settled("zoom"))
    by("closer").click()
    check("the button zooms in", float(settled("zoom")) > before)
    canvas = by("map")
    ActionChains(driver).scroll_from_origin(ScrollOrigin.from_element(canvas), 0, -400).perform()
    time.sleep(0.1)
    closer = float(settled("zoom"))
    check("the wheel zooms in", closer > before * 1.6)
    canvas.send_keys("-")
    check("a key zooms out", float(settled("zoom")) < closer)
    picture = pixels()
    ActionChains(driver).click_and_hold(canvas).move_by_offset(-120, 60).release().perform()
    check("dragging moves it", pixels() != picture and settled("chosen") == "")
    by("whole").click()
    wide = float(settled("zoom"))
    by("fit").click()
    check("all in use is nearer than all mapped", float(settled("zoom")) >= wide)

    # An under-used hugepage: its button leads to it, a click on the picture to what lies there.
    first = driver.find_element(By.CSS_SELECTOR, "#under button")
    address = first.text
    first.click()
    check("the list leads to the hugepage", settled("chosen") == address and float(settled("zoom")) > 30)
    check("it says what lies there", address in by("here").text and "alive" in by("here").text)
    rows = driver.find_elements(By.CSS_SELECTOR, "#here table tr")
    check("its spans are listed", len(rows) > 1 and re.search(r"\d+ × \d+ B", by("here").text))
    box = canvas.size
    step = float(settled("zoom"))
    found = False
    for granule in range(64):
        x, y = (granule % 8 - 3.5) * step, (granule // 8 - 3.5) * step
        if abs(x) > box["width"] / 2 - 5 or abs(y) > box["height"] / 2 - 5:
            continue
        ActionChains(driver).move_to_element_with_offset(canvas, int(x), int(y)).click().perform()
        if driver.find_elements(By.CSS_SELECTOR, "#here tr.chosen"):
            found = True
            break
    check("a click finds the span under it", found and settled("chosen") == address)
    check("and the pointer names it", "hugepage " + address in by("tip").text)

    # The film.
    frames = int(by("frame").get_attribute("max")) + 1
    check(f"the film has {frames} frames", frames > 3)
    by("frame").send_keys(Keys.HOME)
    check("the slider goes to the first", settled("frame") == "0" and "snapshot 1 of" in by("moment").text)
    start = pixels()
    by("forth").click()
    check("a step forward", settled("frame") == "1" and "snapshot 2 of" in by("moment").text)
    by("play").click()
    time.sleep(1.5)
    playing = int(settled("frame"))
    check("it plays", playing > 1)
    by("play").click()
    by("frame").send_keys(Keys.END)
    check("and ends at the last, another picture", int(settled("frame")) == frames - 1 and pixels() != start)
    if "--sites" in sys.argv:
        check("call sites are named", "grow_" in by("under").text or "grow_" in by("words").text)

    wrong = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    check(f"the browser has nothing to complain of {wrong or ''}", not wrong)
    if len(sys.argv) > 2 and not sys.argv[2].startswith("--"):
        by("fit").click()
        settled("zoom")
        driver.save_screenshot(sys.argv[2])
finally:
    driver.quit()
