"""The bytes of a document as text: UTF-8, and what is surely another encoding whose bytes would pass for UTF-8."""

import re
import unicodedata
from collections import Counter

from pipelines.formats.limits import Unreadable

_DECLARED = re.compile(
    rb"""<(?:meta\b[^>]*?charset|\?xml\b[^>]*?encoding)\s*=\s*["']?\s*(utf-7|hz-gb-2312|hz|iso-2022-\w+)\b""", re.IGNORECASE
)
"""What a page says of itself, where that is an encoding in seven bits."""
_CODECS = {"hz-gb-2312": "hz", "iso-2022-jp": "iso2022_jp_ext", "iso-2022-kr": "iso2022_kr"}
_DOUBLE_BYTES = b"\x1b$"
"""How ISO 2022 goes over to a character set of two bytes. Terminals have other escapes."""
_HZ_WORD = re.compile(rb"~\{(?:[!-w][!-~])+~\}")
_UTF7_WORD = re.compile(rb"\+[A-Za-z0-9+/]{3,}-?")
WORDS, LETTERS = 4, 12
"""So many words of UTF-7, or letters of one script in them, are no chance. Of ordinary text one word in four or so would pass for one."""
EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "FULLWIDTH", "HALFWIDTH"})
"""First words of names of characters that are written together."""
MOST_ASCII = 4
"""Of UTF-16 in which ASCII prevails, more than one byte in so many is NUL."""
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def decoded(data: bytes, is_page: bool = False) -> str:
    """The text of a document; only a page of HTML says itself what it is encoded in.

    Raises Unreadable if it is not UTF-8, or surely something else, and cannot be read as that.
    """
    if codec := next((codec for mark, codec in _MARKS.items() if data.startswith(mark)), None):
        return _strictly(data, codec, f"a byte order mark of {codec.upper()}")
    if b"\0" in data and (codec := _without_mark(data)):
        return _strictly(data, codec, f"NUL bytes as in {codec.upper()}")
    if data.isascii() and (found := _seven_bits(data, is_page)):
        return _strictly(data, *found)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"expected UTF-8 text, found another byte at {error.start}") from None


def _strictly(data: bytes, codec: str, found: str) -> str:
    text = _read(data, codec)
    if text is None:
        raise Unreadable(f"expected UTF-8 text, found {found} that cannot be read so: save it as UTF-8")
    return text


def _read(data: bytes, codec: str) -> str | None:
    """None if the codec refuses it, or makes of it what is in no text."""
    try:
        text = data.decode(codec)
    except (UnicodeDecodeError, LookupError):
        return None
    return text if all(_in_texts(character) for character in set(text)) else None


def _in_texts(character: str) -> bool:
    return character in "\t\n\v\f\r\x1a\x85\ufeff" or unicodedata.category(character) not in {"Cc", "Cn", "Co", "Cs"}


def _without_mark(data: bytes) -> str | None:
    """UTF-16 in one of its orders, by the places of NUL: the upper half of each character of ASCII. None: too few, as in a damaged file."""
    upper, lower = data[0::2].count(0), data[1::2].count(0)
    codec = "utf-16-be" if upper > lower else "utf-16-le"
    if MOST_ASCII * (upper + lower) >= len(data):
        return codec
    sided = 10 * min(upper, lower) <= max(upper, lower)
    return codec if sided and not _is_utf8(data) and _read(data, codec) is not None else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _seven_bits(data: bytes, is_page: bool) -> tuple[str, str] | None:
    """The codec of an encoding in ASCII bytes, and what tells it."""
    if is_page and (declared := _DECLARED.search(data[:4096])):
        name = declared[1].decode().lower()
        return _CODECS.get(name, name), f"a page that says it is {name}, and"
    if _DOUBLE_BYTES in data:
        korean = b"\x1b$)C" in data
        return ("iso2022_kr" if korean else "iso2022_jp_ext"), "escapes of ISO-2022"
    if _HZ_WORD.search(data) and _read(data, "hz") is not None:
        return "hz", "HZ"
    return ("utf-7", "UTF-7") if _is_utf7(data) else None


def _is_utf7(data: bytes) -> bool:
    words = len(set(_UTF7_WORD.findall(data)))
    text = _read(data, "utf-7") if words else None
    letters = [character for character in text or "" if not character.isascii() and character.isalpha()]
    scripts = Counter(_script(character) for character in letters)
    return (words >= WORDS or len(letters) >= LETTERS) and 5 * max(scripts.values(), default=0) > 4 * len(letters)


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").partition(" ")[0]
    return "CJK" if name in EAST_ASIAN else name
