"""The credential is in one answer, and nowhere after it."""

import re
from typing import Any

import pytest
from django.urls import reverse

from accounts.models import Session
from audit.models import AuditEvent
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def handed_over(world: World, signed_in: Any) -> tuple[Any, Any, str, Any]:
    grant = world.grant()
    client = signed_in(grant.holder)
    response = client.post(reverse("grant-check-out", kwargs={"pk": grant.pk}))
    found = re.search(r'id="secret-value">([^<]+)<', response.content.decode())
    assert response.status_code == 200
    assert found
    return client, response, found[1], grant


def test_the_answer_is_kept_by_no_cache(handed_over: Any) -> None:
    _, response, secret, _ = handed_over
    assert "no-store" in response["Cache-Control"]
    assert response.content.decode().count(secret) == 1


def test_it_is_not_in_the_session_the_cookies_or_the_record(handed_over: Any) -> None:
    client, response, secret, _ = handed_over
    assert not any(secret in str(row.get_decoded()) for row in Session.objects.all())
    assert not any(secret in cookie.output() for cookie in client.cookies.values())
    assert not any(secret in str(value) for value in response.headers.values())
    assert not any(secret in str(vars(row)) for row in AuditEvent.objects.all())


def test_it_is_on_no_page_afterwards(handed_over: Any) -> None:
    client, _, secret, grant = handed_over
    for name in ("grant", "grant-check-out"):
        page = client.get(reverse(name, kwargs={"pk": grant.pk}), follow=True)
        assert page.status_code == 200
        assert secret not in page.content.decode()
    assert secret not in client.get(reverse("home")).content.decode()


def test_checking_out_again_replaces_it(handed_over: Any) -> None:
    client, _, secret, grant = handed_over
    again = client.post(reverse("grant-check-out", kwargs={"pk": grant.pk}))
    assert secret not in again.content.decode()
    assert sorted(grant.credentials.values_list("state", flat=True)) == ["active", "revoking"]


def test_an_ended_grant_gives_none(world: World, signed_in: Any) -> None:
    grant = world.grant(ended=True)
    response = signed_in(grant.holder).post(reverse("grant-check-out", kwargs={"pk": grant.pk}))
    assert response.status_code == 409
    assert "This grant ended" in response.content.decode()
    assert "secret-value" not in response.content.decode()


@pytest.fixture
def dashboard_grant(world: World) -> Any:
    endpoint = world.endpoint(dialects=["http"], kind="dashboard")
    scope = {"operations": ["GET /admin/"]}
    return world.grant(profile=world.profile(endpoint=endpoint, models=None, scope=scope))


def test_opening_in_a_browser_hands_it_to_the_gateway_alone(
    dashboard_grant: Any, signed_in: Any
) -> None:
    grant = dashboard_grant
    client = signed_in(grant.holder)
    page = client.get(reverse("grant", kwargs={"pk": grant.pk}))
    assert "Open in browser" in page.content.decode()
    assert "form-action 'self';" in page["Content-Security-Policy"] + ";"  # in any order
    response = client.post(reverse("grant-open", kwargs={"pk": grant.pk}))
    found = re.search(r'name="credential" value="([^"]+)"', response.content.decode())
    assert found
    secret = found[1]
    assert response.content.decode().count(secret) == 1
    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "strict-origin"
    policy = response["Content-Security-Policy"] + ";"
    assert "form-action 'self' http://localhost:8080;" in policy
    action = f"http://localhost:8080/e/{grant.request.profile.endpoint.slug}/.keyturn/session"
    assert f'action="{action}"' in response.content.decode()
    assert secret not in str(client.cookies) + str(response.headers)
    assert not any(secret in str(vars(row)) for row in AuditEvent.objects.all())
    again = client.post(reverse("grant-open", kwargs={"pk": grant.pk}))
    assert again.status_code == 200
    assert sorted(grant.credentials.values_list("state", flat=True)) == ["active", "revoking"]


def test_what_has_no_pages_is_not_opened(world: World, signed_in: Any) -> None:
    grant = world.grant()
    client = signed_in(grant.holder)
    page = client.get(reverse("grant", kwargs={"pk": grant.pk}))
    assert "Open in browser" not in page.content.decode()
    assert client.post(reverse("grant-open", kwargs={"pk": grant.pk})).status_code == 409
    assert not grant.credentials.exists()
