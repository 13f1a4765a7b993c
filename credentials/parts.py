"""A secret by its parts, as a page shows them this once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

LABELS = {
    "secret": "Credential",
    "url": "Connection URL",
    "username": "User name",
    "password": "Password",
    "host": "Host",
    "port": "Port",
    "dbname": "Database",
    "certificate": "Certificate",
    "private_key": "Private key",
    "ca_chain": "Certificates of its CA",
    "access_key": "Access key",
    "secret_key": "Secret key",
    "security_token": "Session token",
}


@dataclass(frozen=True)
class Part:
    """One thing to copy; what has several lines can be saved as a file of this name too."""

    key: str
    label: str
    text: str = field(repr=False)
    file: str = ""


def shown(parts: Mapping[str, str]) -> list[Part]:
    """First what one pastes where a key is asked for; nothing twice."""
    secret = parts["secret"]
    others = {key: text for key, text in parts.items() if key != "secret"}
    same = next((key for key, text in others.items() if text == secret), "secret")
    if "private_key" in parts and "\n" in secret:
        first = Part("secret", "Key and certificate in one file", secret, "client.pem")
    else:
        first = Part("secret", _label(same), secret)
    return [
        first,
        *(
            Part(key, _label(key), text, f"{key}.pem" if "\n" in text else "")
            for key, text in others.items()
            if text and key != same
        ),
    ]


def _label(key: str) -> str:
    return LABELS.get(key, key.replace("_", " ").capitalize())
