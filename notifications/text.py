"""Making text that anybody may have written harmless in a mail, a chat and a page."""

import unicodedata

from audit.redaction import redact

# Format characters that letters and emoji need. The others reorder or hide what stands there.
JOINERS = {"\u200c", "\u200d"}


def line(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters.

    A line break would begin a header of its own in a mail, and an escape sequence would move the
    cursor of a terminal that shows it.
    """
    return _short(" ".join(_neutral(text).split()), most)


def passage(text: str, most: int) -> str:
    """The same for what may have several lines."""
    lines = (" ".join(each.split()) for each in _neutral(text).splitlines())
    return _short("\n".join(lines).strip(), most)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _neutral(text: str) -> str:
    return "".join(_harmless(character) for character in redact(text))


def _harmless(character: str) -> str:
    if character in "\n\r\t":
        return character
    match unicodedata.category(character):
        case "Zl" | "Zp":
            return "\n"
        case "Cc" | "Cs":
            return "\ufffd"
        case "Cf" if character not in JOINERS:
            return ""
    return character
