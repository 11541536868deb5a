"""A viewer without a browser: what a dashboard answers, as a text."""

import json
import re
from dataclasses import dataclass
from html import unescape
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.support.window import TOKEN


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    text: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of `as=json`."""
        found: list[dict[str, Any]] = json.loads(self.text)
        return found

    @property
    def said(self) -> str:
        """What is read on the page, without its markup."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.text)).split())


@dataclass(frozen=True)
class Viewer:
    """Has the token."""

    address: str

    def get(self, path: str, *pairs: tuple[str, str], **fields: Any) -> Reply:
        """`pairs`: fields that come several times, or whose names Python does not allow."""
        connection = HTTPConnection(urlsplit(self.address).netloc, timeout=60)
        try:
            asked = urlencode([*pairs, *fields.items()])
            connection.request("GET", f"{path}?{asked}" if asked else path, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            return Reply(answer.status, answer.read().decode())
        finally:
            connection.close()
