"""The page as a browser shows it, where one is at hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from support.charts import POINTS, report
from support.external import is_absent
from upwell.runtime.charts.model import Color
from upwell.runtime.simulate.page import render_simulation

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1100, 2000


@pytest.fixture(scope="module")
def browser() -> str:
    """The command of a browser that can run without a screen."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        is_absent("a browser", "apt-get install chromium")
    return found


def shown(browser: str, folder: Path, *flags: str) -> tuple[Image.Image, str]:
    """A picture of a report's page, and what the browser said of it."""
    page, picture = folder / "report.html", folder / "report.png"
    page.write_text(render_simulation(report(sweep=POINTS, recommended=POINTS[1])), encoding="utf-8")
    ended = subprocess.run(
        [
            *(
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--enable-logging=stderr",
            ),
            *(f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{HEIGHT}", *flags),
            *(f"--screenshot={picture}", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    with Image.open(picture) as opened:
        return opened.convert("RGB"), ended.stderr


def painted(picture: Image.Image, color: str) -> int:
    """How many pixels have just that colour."""
    wanted = tuple(int(color[at : at + 2], 16) for at in (1, 3, 5))
    return sum(count for count, found in picture.getcolors(1 << 24) or [] if found == wanted)


def test_a_browser_shows_charts_in_their_colours_and_complains_of_nothing(browser: str, tmp_path: Path) -> None:
    picture, said = shown(browser, tmp_path, "--blink-settings=preferredColorScheme=1")
    assert picture.getpixel((3, 3)) == (255, 255, 255)
    for color in (Color.INK, Color.BLUE, Color.GREY, Color.VERMILION):
        assert painted(picture, color.light) > 50
    assert "CONSOLE" not in said


def test_a_browser_that_prefers_dark_shows_the_dark_colours(browser: str, tmp_path: Path) -> None:
    picture, _ = shown(browser, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert painted(picture, Color.PAPER.dark) > WIDTH * HEIGHT / 2
    assert painted(picture, Color.BLUE.dark) > 50
    assert painted(picture, Color.PAPER.light) == 0
