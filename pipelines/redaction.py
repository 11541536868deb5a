"""Takes secrets out of what people, logs and records get to see: at every edge where a text leaves the program."""

import os
import re
from collections.abc import Mapping

HIDDEN = "[hidden]"
_SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST = 8
"""A shorter value hides nothing, and would be found in the middle of words."""
_PATTERNS = [
    (re.compile(r"(?<=://)[^\s/'\"]*@"), f"{HIDDEN}@"),
    (re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\"]*"), rf"\1?{HIDDEN}"),
    # a store that refuses a signature sends back what was signed, the session token included
    (re.compile(r"(?i)(x-amz-(?:security-token|signature|credential)\s*[:=]\s*)[^\s&<'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)<(AWSAccessKeyId|StringToSign|CanonicalRequest|SignatureProvided)>.*?</\1>", re.DOTALL), rf"<\1>{HIDDEN}</\1>"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
]
"""User and password, the query of a link, and what object stores say of requests; their keys by their form."""


_OBEYED = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_OBEYED |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")
"""What a terminal acts on: escape sequences begin with the first ones; the last ones turn the order of what follows."""


def printable(text: str) -> str:
    """`text` as a terminal may have it: pictures in place of control characters, but for ends of lines and tabs."""
    return text.translate(_OBEYED)


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without credentials: those of the environment wherever they stand, and whatever stands where a URI has its own."""
    for name in _SECRET_VARIABLES:
        secret = environ.get(name, "")
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
