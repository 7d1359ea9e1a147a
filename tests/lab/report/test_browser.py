import re
import shutil
import subprocess

import pytest
from matplotlib.image import imread

from tracegrad.lab.report.writing import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
)


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    return write_report([trained], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def opened(browser, page, tmp_path):
    """Opens the report with further flags; returns what the browser printed."""

    def run(*flags):
        command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    return run


@pytest.mark.slow
def test_every_figure_shows_and_nothing_is_wrong(opened):
    process = opened("--dump-dom")
    assert process.stdout.count("<figure") == process.stdout.count("</svg>") == 7
    assert "CONSOLE" not in process.stderr, process.stderr
    assert not re.search(r"https?://", process.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["0", "1"], ids=["dark", "light"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_draws_in_every_theme_and_width(opened, tmp_path, scheme, width):
    image = tmp_path / "page.png"
    opened(f"--screenshot={image}", f"--window-size={width},3000", f"--blink-settings=preferredColorScheme={scheme}")
    pixels = imread(image)[..., :3]
    background = pixels[5, 5]
    assert (background.mean() < 0.5) == (scheme == "0")
    drawn = (abs(pixels - background).max(-1) > 0.1).mean()
    assert drawn > 0.01, "the page looks empty"
