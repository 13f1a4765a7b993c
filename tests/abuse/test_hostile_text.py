"""Text that was made to be misread: by a terminal, a log, a spreadsheet, a page, Vault or SQL."""

import io
import logging
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Review
from accounts import tokens
from accounts.actions import create_user
from accounts.models import User
from audit.redaction import Redact, redact
from broker.errors import InvalidInput
from credentials.actions import check_out, end_grant
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.actions import create_endpoint
from endpoints.models import Endpoint
from tests.servers import Servers
from tests.world import PROVED, World, unique

HOSTILE = {
    "a second line of the log": "x\r\n2026-01-01 00:00:00 INFO accounts admin signed in",
    "a terminal's escape": "\x1b[2J\x1b[31mowned\x07",
    "a spreadsheet's formula": '=cmd|"/c calc"!A1',
    "a script": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a template": "{{ settings.SECRET_KEY }}{% debug %}",
    "SQL": "'); DROP TABLE accounts_user; --",
    "a path": "../../../sys/policies/acl/web?x=#%2e%2e%2f",
    "text that runs backwards": "\u202egnitset\u2066\u200b",
    "look-alikes": "\u0430dmin \uff41dmin \ufb01n \u0130\u0131",
    "an emoji of many parts": "👩‍👩‍👧‍👦",
    "line separators": "a\u2028b\u2029c\x85d",
}


def logged(message: str, *args: Any, error: BaseException | None = None) -> str:
    """What our handler writes of this."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(Redact())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("x", logging.INFO, "x", 1, message, args, info)
    handler.handle(record)
    return out.getvalue()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_log_shows_it_on_one_line_without_control_characters(kind: str) -> None:
    text = logged("asked for: %s", HOSTILE[kind])
    assert text.startswith("INFO asked for: ")
    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_traceback_in_a_log_forges_no_line_either(kind: str) -> None:
    try:
        raise ValueError(HOSTILE[kind])
    except ValueError as error:
        text = logged("failed", error=error)
    lines = text.split("\n")[:-1]
    assert lines[0] == "INFO failed"
    assert all(line.startswith(" ") for line in lines[1:]), lines
    assert all(line.isprintable() for line in lines), lines


SECRETS = {
    "a service token": "s.AbCdEf0123456789AbCdEf01.owfDzf",
    "Vault's spelling of one": "hvs.CAESIJ-abcdefghijklmnopqrstuvwxyz0123456789_x",
    "a batch token": "b.AAAAAQIabcdefghijklmnopqrstuvwxyz",
    "an API token": tokens.generate().text,
    "an invitation's token": f"kt_inv_{'aB3dE6gH' * 5}xyz",
    "a recovery code": "7ZK3QM-0AB1CD-XY9Z8W-R5T6VN",
    "an authenticator's": "otpauth://totp/Keyturn:a%40b?secret=JBSWY3DPEHPK3PXP&issuer=Keyturn",
    "a provider's code": "code=SplxlOBeZQQYbYS6WxSbIA",
    "a provider's key": "sk-proj-abcdefghijklmnop0123",
    "a JWT": f"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJo{'dHRw' * 20}.{'Dr5tmhFK' * 10}123456",
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize(
    "around", ["{}", "Bearer {}", "token={}&x=1", '{{"token": "{}"}}', "'{}'", "({})", "a {} b"]
)
def test_a_log_never_shows_what_looks_like_a_secret(around: str, kind: str) -> None:
    secret = SECRETS[kind]
    assert secret not in logged("%s", around.format(secret))
    assert secret not in logged("failed", error=ValueError(around.format(secret)))
    assert "[redacted]" in redact(around.format(secret))


@pytest.mark.parametrize("text", ["ticket 4711", "task-force", "e-mail: a.b@c.de", "kt-01abc", ""])
def test_a_log_shows_everything_else(text: str) -> None:
    assert redact(text) == text


@pytest.fixture
def hostile_request(world: World, request: pytest.FixtureRequest) -> AccessRequest:
    """Everything that people can name or say is hostile."""
    text = HOSTILE[request.param]
    owner = world.person(full_name=text)
    endpoint = world.endpoint(owner=owner, name=text[:100], description=text)
    profile = world.profile(endpoint=endpoint, description=text, models=[text, "demo-small"])
    world.person(profile.reviewers, full_name=text)
    return file_request(
        by=world.person(profile.requesters, full_name=text),
        profile_id=profile.pk,
        justification=text,
    )


@pytest.mark.django_db
@pytest.mark.parametrize("hostile_request", HOSTILE, indirect=True)
def test_pages_show_it_as_text(hostile_request: AccessRequest, world: World) -> None:
    reviewer = world.person(hostile_request.profile.reviewers)
    client = Client()
    client.force_login(reviewer)
    for page in (
        reverse("request", args=[hostile_request.pk]),
        reverse("approvals"),
        reverse("approvals-decided"),
        reverse("approvals-others"),
        reverse("approvals-figures"),
        reverse("catalogue"),
        reverse("endpoint", args=[hostile_request.profile.endpoint.slug]),
    ):
        answer = client.get(page)
        assert answer.status_code == 200
        text = answer.content.decode()
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "DROP TABLE" not in text or "&#x27;); DROP" in text
        assert "django-insecure" not in text


@pytest.mark.django_db
@pytest.mark.parametrize("hostile_request", HOSTILE, indirect=True)
def test_what_is_hostile_is_minted_for_and_revoked_like_anything_else(
    hostile_request: AccessRequest, world: World, servers: Servers, sweep: Any
) -> None:
    reviewer = User.objects.get(memberships__group=hostile_request.profile.reviewers)
    grant = review_request(
        by=reviewer, request_id=hostile_request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    ).request.grant
    out = check_out(by=grant.holder, grant_id=grant.pk)
    held = servers.vault("POST", "auth/token/lookup", {"token": out.secret})["data"]
    assert held["display_name"].isascii()
    end_grant(grant_id=grant.pk, by=grant.holder)
    sweep()
    assert Credential.objects.get(grant=grant).state == CredentialState.REVOKED


@pytest.mark.django_db
@pytest.mark.parametrize(
    "slug",
    ["", ".", "..", "../x", "a/b", "a%2fb", "A", "é", "-a", "a-", "a" * 51, "a b", "a\n", "a\x00",
     "\u0430dmin", "a?x", "a#x", "a_b"],
)  # fmt: skip
def test_a_slug_that_could_be_another_path_in_vault_is_refused(slug: str, world: World) -> None:
    """Vault's path to an upstream key and the gateway's route are made from it."""
    like = {"environment": "production", "risk": "elevated", "dialects": ["openai"]}
    with pytest.raises(InvalidInput) as caught:
        create_endpoint(
            by=None,
            slug=slug,
            name="Chat",
            upstream_url=world.upstream_url,
            owner=world.person(),
            **like,
        )
    assert caught.value.errors
    assert not Endpoint.objects.filter(slug=slug.replace("\x00", "")).exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "url",
    ["", "ftp://x", "javascript:alert(1)", "http://", "https://u:p@x", "https://x?q=1",
     "https://x#f", "//x", "x", "file:///etc/passwd", "https://x/\x00", "http://[::1"],
)  # fmt: skip
def test_an_upstream_that_is_none_is_refused(url: str, world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.endpoint(upstream_url=url, with_key=False)
    assert "upstream_url" in caught.value.errors


@pytest.mark.django_db
def test_one_person_has_one_account_however_their_address_is_spelt(world: World) -> None:
    mark = unique()
    create_user(by=None, email=f"Ana.{mark}@Example.COM", full_name="Ana")
    with pytest.raises(InvalidInput) as caught:
        create_user(by=None, email=f" ana.{mark}@example.com ", full_name="Another Ana")
    assert "email" in caught.value.errors
