"""The report's page in a browser: with mouse and keyboard, on a phone, with a dark colour scheme, in print."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, chromium
from synthetic_rows import cost, many_rows, run_row

from hybrid_backbones.benchmark.report.grouping import Results
from hybrid_backbones.benchmark.report.page import write_page
from hybrid_backbones.benchmark.report.sections import sections

HOSTILE = (
    '<script>window.broken = 1</script>',
    '</script><script>window.broken = 1</script>',
    '"><img src=x onerror="window.broken = 1">',
    "'-->]]><svg onload=window.broken=1>",
    '<a href="javascript:window.broken=1">x</a><b>y</b>',
    '%{x} {{ title }} &lt;i&gt; $x$',
    "=cmd|' /C calc'!A0",
)
COUNTS = {'none': 0, 'one': 1, 'many': 500}


@pytest.fixture(scope='module')
def browser(tmp_path_factory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp('profile')) as found:
        yield found


@pytest.fixture(scope='module')
def pages(tmp_path_factory) -> dict[str, Path]:
    """Pages of 0, 1 and 500 rows, with every kind of section, and with names that contain HTML."""
    folder = tmp_path_factory.mktemp('pages')
    rows = {
        'none': [],
        'one': [run_row(cost=cost(45, 250))],
        'many': many_rows(seeds=11)[:500],
        'mixed': many_rows(settings=1, seeds=1),
        'hostile': [
            run_row(name, score=40 + i, dataset=HOSTILE[0], cost=cost(45, 250 + 20 * i), reason=name, weights=None)
            for i, name in enumerate(HOSTILE)
        ],
    }
    for name, found in rows.items():
        title = HOSTILE[1] if name == 'hostile' else f'Report of {name}'
        (folder / f'{name}.html').write_text(write_page(Results(found), sections(Results(found)), title))
    return {name: folder / f'{name}.html' for name in rows}


def draw_first(browser: Browser) -> None:
    """Scroll to the first plot and wait until it is drawn."""
    browser.js('document.querySelector(".plot")?.scrollIntoView({block: "center"})')
    wait(browser, 'const plot = document.querySelector(".plot"); return !plot || !!plot.querySelector(".xtick")')


def wait(browser: Browser, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser.driver, 10, poll_frequency=0.05).until(lambda _: browser.js(script))


def column(browser: Browser, title: str) -> list[str]:
    """Texts of a column in the visible rows of the first table."""
    return browser.js(
        """const table = document.querySelector('table');
        const i = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === arguments[0]);
        return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[i].textContent);""",
        title,
    )


def header(browser: Browser, title: str):
    return browser.driver.find_element('xpath', f'(//table)[1]//th[button[text()="{title}"]]')


@pytest.mark.parametrize('name', ['none', 'one', 'many', 'mixed'])
def test_page_has_no_console_messages_and_no_requests(browser, pages, name):
    browser.open(pages[name])
    draw_first(browser)
    assert browser.console() == []
    assert browser.requested() == [pages[name].as_uri()]
    assert browser.js('return document.title') == f'Report of {name}'
    if name in COUNTS:
        assert browser.js('return document.querySelector("table")?.tBodies[0].rows.length ?? 0') == COUNTS[name]


def test_page_without_rows_says_so(browser, pages):
    browser.open(pages['none'])
    assert 'There are no rows yet' in browser.js('return document.body.innerText')
    assert pages['none'].stat().st_size < 50_000


def test_table_of_500_rows_sorts_and_filters(browser, pages):
    browser.open(pages['many'])
    assert browser.js('return performance.timing.domInteractive - performance.timing.responseEnd') < 5000
    numbers = sorted(map(float, column(browser, 'params, M')))
    title = header(browser, 'params, M')
    title.find_element('tag name', 'button').click()
    assert title.get_attribute('aria-sort') == 'descending'
    assert list(map(float, column(browser, 'params, M'))) == numbers[::-1]
    # Reversed by keyboard.
    title.find_element('tag name', 'button').send_keys('\ue007')
    assert title.get_attribute('aria-sort') == 'ascending'
    assert list(map(float, column(browser, 'params, M'))) == numbers
    header(browser, 'backbone').find_element('tag name', 'button').click()
    assert title.get_attribute('aria-sort') is None
    assert column(browser, 'backbone') == sorted(column(browser, 'backbone'))

    form = browser.driver.find_element('css selector', 'form')
    form.find_element('name', 'text').send_keys('CVT upernet')
    assert set(column(browser, 'backbone')) == {'cvt_13', 'cvt_21'}
    shown = len(column(browser, 'backbone'))
    assert form.find_element('tag name', 'output').text == f'{shown} of 500 rows'
    assert set(column(browser, 'framework')) == {'upernet'}
    form.find_element('css selector', 'button[type=reset]').click()
    wait(browser, 'return document.querySelector("output").textContent === "500 of 500 rows"')


def test_selection_filters_and_unknown_values_come_last(browser, pages):
    browser.open(pages['mixed'])
    browser.js(
        """const select = [...document.querySelectorAll('form label')]
          .find(label => label.firstChild.textContent.trim() === 'origin').querySelector('select');
        select.value = 'quoted'; select.dispatchEvent(new Event('input', {bubbles: true}));"""
    )
    assert column(browser, 'backbone') == ['pvt_s']
    browser.js('document.querySelector("form button[type=reset]").click()')
    wait(browser, 'return document.querySelectorAll("tbody")[0].querySelector("tr[hidden]") === null')
    button = header(browser, 'mask AP').find_element('tag name', 'button')
    for _ in range(2):
        button.click()
        assert column(browser, 'mask AP')[-2:] == ['–', '–']
        assert set(column(browser, 'state')[-2:]) == {'failed', 'killed'}


def hover_text(browser: Browser, nth: int) -> str:
    """The text that appears when the mouse is over a point of the first plot."""
    from selenium.webdriver.common.action_chains import ActionChains

    points = browser.driver.find_elements('css selector', '.plot .scatterlayer .point')
    bar = browser.driver.find_element('css selector', '.plot .modebar')
    # Leave all points first, so that the previous text disappears.
    ActionChains(browser.driver, duration=20).move_to_element(bar).perform()
    wait(browser, 'return !document.querySelector(".plot .hoverlayer .hovertext")')
    ActionChains(browser.driver, duration=20).move_to_element(points[nth]).perform()
    wait(browser, 'return !!document.querySelector(".plot .hoverlayer .hovertext")')
    return browser.js('return document.querySelector(".plot .hoverlayer .hovertext").textContent')


def test_hover_shows_the_backbone_and_its_numbers(browser, pages):
    browser.open(pages['one'])
    draw_first(browser)
    text = hover_text(browser, 0)
    assert text.startswith('cvt_13')
    assert 'mask AP 40.00 %' in text
    assert 'MACs 250.0 G' in text
    assert 'parameters 45.0 M' in text


def test_plots_have_no_upload_button(browser, pages):
    browser.open(pages['one'])
    draw_first(browser)
    script = 'return [...document.querySelector(".modebar").querySelectorAll("a, button")].map(b => b.dataset.title)'
    titles = browser.js(script)
    assert len(titles) == 4
    assert not any('hare' in title or 'loud' in title for title in titles)


def test_html_in_names_is_shown_as_text(browser, pages):
    browser.open(pages['hostile'])
    draw_first(browser)
    assert column(browser, 'backbone') == list(HOSTILE)
    assert browser.js('return document.querySelector("h1").textContent') == HOSTILE[1]
    count = browser.js('return document.querySelector(".plot").querySelectorAll(".scatterlayer .point").length')
    texts = [hover_text(browser, i) for i in range(count)]
    assert all(any(name in text for text in texts) for name in HOSTILE)
    browser.js('document.querySelector("#z-scores .plot").scrollIntoView()')
    wait(browser, 'return !!document.querySelector("#z-scores .ytick")')
    ticks = browser.js('return [...document.querySelectorAll("#z-scores .ytick text")].map(tick => tick.textContent)')
    assert set(ticks) == {name if len(name) <= 28 else f'{name[:27]}…' for name in HOSTILE}
    assert browser.js('return window.broken') is None
    assert browser.js('return document.querySelectorAll("main img, main svg[onload], .plot a[href]").length') == 0
    assert browser.console() == []


def test_phone_has_no_horizontal_scrolling(browser, pages):
    browser.open(pages['mixed'])
    browser.cdp('Emulation.setDeviceMetricsOverride', width=360, height=740, deviceScaleFactor=1, mobile=True)
    draw_first(browser)
    browser.js('document.querySelectorAll("details").forEach(part => part.open = true)')
    assert browser.js('return [innerWidth, document.documentElement.scrollWidth]') == [360, 360]
    wait(browser, 'return document.querySelector(".plot .main-svg").getBoundingClientRect().width <= 360')


def test_page_and_plots_follow_the_dark_colour_scheme(browser, pages):
    browser.open(pages['one'])
    draw_first(browser)
    colours = """const style = element => getComputedStyle(document.querySelector(element));
        return [style('body').backgroundColor, style('.plot .xtick text').fill]"""
    light = browser.js(colours)
    browser.emulate(**{'prefers-color-scheme': 'dark'})
    wait(
        browser,
        f'{colours.replace("return", "const now =")}; return now[1] !== arguments[0]'.replace(
            'arguments[0]', repr(light[1])
        ),
    )
    assert light == ['rgb(255, 255, 255)', 'rgb(27, 31, 36)']
    assert browser.js(colours) == ['rgb(20, 23, 27)', 'rgb(228, 231, 235)']


def test_printing_draws_every_plot(browser, pages):
    browser.open(pages['mixed'])
    browser.emulate(media='print')
    wait(browser, 'return [...document.querySelectorAll(".plot")].every(plot => plot.querySelector(".xtick"))')
    assert browser.js('return document.querySelectorAll(".plot").length') > 10
    assert browser.js('return getComputedStyle(document.querySelector("form")).display') == 'none'
    browser.emulate()
    assert browser.console() == []


def test_keyboard_skips_to_the_content_and_reaches_tables(browser, pages):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(pages['one'])
    ActionChains(browser.driver).send_keys('\ue004').perform()
    assert browser.js('return document.activeElement.className') == 'skip'
    assert browser.js('return document.activeElement.getBoundingClientRect().left') >= 0
    ActionChains(browser.driver).send_keys('\ue007').perform()
    assert browser.js('return document.activeElement.id') == 'content'
    focusable = browser.js('return document.querySelectorAll(".scroll[tabindex=\\"0\\"], th button").length')
    assert focusable > 10
