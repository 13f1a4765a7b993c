"""Keeping secrets out of logs."""

import logging
import re

# Service, batch and recovery tokens of Vault and OpenBao; Keyturn's own tokens, of invitations too;
# its recovery codes; what sets up an authenticator; a provider's codes; bearer headers; keys of the
# `sk-` family; webhooks' secrets; JWTs. A rotating log would keep for months what must live for
# minutes.
_SECRETS = re.compile(
    r"\b(?:hv)?[sbr]\.[A-Za-z0-9_\-.]{20,}"
    r"|\bkt_[a-z]+_(?:[0-9A-Za-z]+_)?[0-9A-Za-z]{43}(?:_[0-9a-f]{8})?"
    r"|\b[0-9A-HJKMNP-TV-Z]{6}(?:-[0-9A-HJKMNP-TV-Z]{6}){3}\b"
    r"|\botpauth://[^\s'\"]+"
    r"|(?i:\bcode=)[^\s'\"&]{16,}"
    r"|\bsk-[A-Za-z0-9_\-]{16,}"
    r"|\bwhsec_[A-Za-z0-9+/=]{16,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{16,}"
    r"|(?i:\bbearer\s+)[^\s'\"]{16,}"
)


def redact(text: str) -> str:
    """`text` with everything that looks like a secret replaced by [redacted]."""
    return _SECRETS.sub("[redacted]", text)


class Redact(logging.Filter):
    """Applies `redact` to messages and tracebacks, and neutralises control characters.

    A justification or a path with CR, LF or an escape sequence must not forge a second line or
    move a terminal's cursor.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = neutral(redact(record.getMessage()))
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _indented(logging.Formatter().formatException(record.exc_info))
        if record.stack_info:
            record.stack_info = _indented(record.stack_info)
        return True


def _indented(text: str) -> str:
    """A traceback ends with what an exception says, which may be made to look like a line of its
    own: no line of it begins where one of the log's does."""
    return "\n".join(f"  {neutral(line)}" for line in redact(text).split("\n"))


def neutral(text: str) -> str:
    """`text` with each control character, and what can't be stored, spelt out."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)
