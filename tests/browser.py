"""Headless Chromium for tests of pages; skips where there is none."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--window-size=1280,900',
)


class Browser:
    """A page at a time, with what it logged and asked for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path) -> None:
        """Open a file at the size and scheme of a desktop; what was logged before is forgotten."""
        self.cdp('Emulation.setDeviceMetricsOverride', width=1280, height=900, deviceScaleFactor=1, mobile=False)
        self.emulate(**{'prefers-color-scheme': 'light'})
        self.driver.get('about:blank')
        self.driver.get_log('browser')
        self.driver.get_log('performance')
        self.driver.get(page.as_uri())

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def emulate(self, media: str = '', **features: str) -> None:
        """Another medium, and media features."""
        found = [dict(name=name, value=value) for name, value in features.items()]
        self.cdp('Emulation.setEmulatedMedia', media=media, features=found)

    def console(self) -> list[str]:
        """Errors and warnings since the page was opened."""
        return [entry['message'] for entry in self.driver.get_log('browser')]

    def requested(self) -> list[str]:
        """Addresses that the page asked for since it was opened."""
        messages = [json.loads(entry['message'])['message'] for entry in self.driver.get_log('performance')]
        return [m['params']['request']['url'] for m in messages if m['method'] == 'Network.requestWillBeSent']


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start Debian's Chromium and its driver, as they are installed: nothing is downloaded."""
    webdriver = pytest.importorskip('selenium.webdriver', reason="selenium is missing: pip install -e '.[test]'")
    found = [path for name in ('chromium', 'chromium-browser', 'google-chrome') if (path := shutil.which(name))]
    driver = shutil.which('chromedriver')
    if not found or not driver:
        pytest.skip('no chromium and chromedriver: apt-get install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for flag in (*FLAGS, f'--user-data-dir={profile}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', dict(browser='ALL', performance='ALL'))
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()
