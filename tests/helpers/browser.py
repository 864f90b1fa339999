"""A page as people see it: in the system's Chromium, at the width of a desktop and of a phone, light and dark."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

VARIANTS = [(width, scheme) for width in (1280, 390) for scheme in ('light', 'dark')]
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@contextmanager
def launched() -> Iterator[Any]:
    """The browser; the test is skipped where there is none."""
    api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    if CHROMIUM is None:
        pytest.skip('there is no Chromium on this machine')
    with api.sync_playwright() as playwright:
        # Without a sandbox, since containers have none.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


def check_page(path: Path, variants: Sequence[tuple[int, str]] = VARIANTS) -> None:
    """Fails if a script fails, the network is used, a picture is not shown, something is wider than the page, or the
    curves have no label below the mouse.
    """
    with launched() as browser:
        for width, scheme in variants:
            context = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme)
            # A busy machine is no failure.
            context.set_default_timeout(120_000)
            page = context.new_page()
            complaints, asked = [], []
            page.on('pageerror', lambda error, complaints=complaints: complaints.append(str(error)))
            page.on('dialog', lambda dialog, complaints=complaints: complaints.append(dialog.message))
            page.on('console', lambda line, complaints=complaints: complaints.append(line.text))
            page.on('request', lambda request, asked=asked: asked.append(request.url))
            page.goto(path.as_uri())
            page.wait_for_function(
                'document.querySelectorAll(".chart").length == document.querySelectorAll(".js-plotly-plot").length'
            )
            # Parts that are closed at first are too wide for nothing either.
            page.evaluate('document.querySelectorAll("details").forEach((part) => { part.open = true; })')
            widths = page.evaluate('[document.documentElement.scrollWidth, innerWidth]')
            assert widths[0] <= widths[1] == width, (scheme, widths)
            shown = page.evaluate('[...document.images].map((image) => image.naturalWidth)')
            assert all(shown), (width, scheme, shown)
            background = page.evaluate('getComputedStyle(document.body).backgroundColor')
            assert (sum(map(int, background[4:-1].split(', '))) > 380) == (scheme == 'light')
            check_hover(page)
            assert complaints == [], (width, scheme, complaints)
            assert [url for url in asked if not url.startswith(('file:', 'data:'))] == []
            context.close()


def check_hover(page: Any) -> None:
    plot = page.locator('.nsewdrag').first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert page.locator('.hoverlayer').first.text_content() == ''
    page.mouse.move(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    page.wait_for_function('document.querySelector(".hoverlayer").textContent.includes(" : ")')
