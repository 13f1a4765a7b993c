"""What is wrong with KEYTURN_SSO_FILE is named, by line and key."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from accounts.sso.configuration import provider, providers, read
from broker.errors import InvalidInput

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sso.yaml"
GOOD = """\
providers:
  - slug: acme
    name: Acme
    issuer: https://login.acme.example
    client_id: keyturn
    client_secret: s3cret
    domains: [acme.example]
"""


def test_the_example_is_good(tmp_path: Path) -> None:
    secret = tmp_path / "client"
    secret.write_text("s3cret\n")
    text = EXAMPLE.read_text()
    for name in ("acme", "partners"):
        text = text.replace(f"/run/secrets/{name}-client", str(secret))
    path = tmp_path / "sso.yaml"
    path.write_text(text)
    with override_settings(KEYTURN_SSO_FILE=str(path)):
        acme, partners = providers()
        assert (acme.secret, acme.groups is not None) == ("s3cret", True)
        assert provider("partners") == partners
        assert "s3cret" not in repr(providers())


@pytest.mark.parametrize(
    ("good", "bad", "key"),
    [
        ("slug: acme", "slug: Acme", "providers.0.slug"),
        ("slug: acme", "slug: password", "providers.0.slug"),
        ("https://login", "http://login", "providers.0.issuer"),
        ("acme.example\n    client_id", "acme.example/?a=1\n    client_id", "providers.0.issuer"),
        ("[acme.example]", "[]", "providers.0.domains"),
        ("[acme.example]", "['*']", "providers.0.domains.0"),
        ("client_secret: s3cret", "client_secret_file: /nonexistent", "client_secret_file"),
        ("    client_secret: s3cret\n", "", "providers.0"),
        ("name: Acme", "name: Acme\n    new_accounts: 'yes'", "providers.0.new_accounts"),
        ("name: Acme", "name: Acme\n    new_acounts: true", "providers.0.new_acounts"),
        ("name: Acme", "name: Acme\n    groups: {members: {}}", "providers.0.groups.members"),
        ("providers:\n", "providers:\n" + GOOD.partition("\n")[2], "providers.1.slug"),
    ],
)
def test_what_is_wrong_is_named(good: str, bad: str, key: str) -> None:
    assert read(GOOD)
    assert good in GOOD
    with pytest.raises(InvalidInput) as refused:
        read(GOOD.replace(good, bad, 1))
    assert any(key in where for where in refused.value.errors), refused.value.errors
    assert "s3cret" not in str(refused.value.errors)


def test_a_bad_file_ends_the_start_with_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "sso.yaml"
    path.write_text(GOOD.replace("https:", "http:"))
    with (
        override_settings(KEYTURN_SSO_FILE=str(path)),
        pytest.raises(ImproperlyConfigured, match=r"line 4.*issuer|issuer.*line 4"),
    ):
        providers()
