"""What a viewer sees in a real browser: every page at a glance, with nothing on its console."""

from tests.support.window import Window


def test_overview(address: str, browser: Window) -> None:
    with browser.at(address) as page:
        assert page.get_by_role("heading", name="Collections").is_visible()
    assert browser.complaints == []
