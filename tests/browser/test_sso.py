"""Signing in by a company's provider and out again, with the provider's own pages in between."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from oidc_provider_mock import User as Known
from oidc_provider_mock import run_server_in_thread
from playwright.sync_api import expect

from accounts.actions import join_group
from accounts.models import User
from tests.browser.conftest import Visitor
from tests.conftest import free_port, running_web
from tests.servers import Servers
from tests.sso.test_standing import a_minute_later
from tests.world import World

ANA = Known(
    sub="ana",
    claims={"name": "Ana Castillo", "email": "ana@acme.example", "email_verified": True},
)


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
        with run_server_in_thread(user_claims=[ANA], require_nonce=True) as server:
            yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def portal(
    servers: Servers, django_db_setup: None, provider: str, tmp_path_factory: Any
) -> Iterator[str]:
    path: Path = tmp_path_factory.mktemp("sso") / "sso.yaml"
    acme = {
        "slug": "acme",
        "name": "Acme",
        "issuer": provider,
        "client_id": "keyturn",
        "client_secret": "of no use elsewhere",
        "domains": ["acme.example"],
        "new_accounts": True,
    }
    path.write_text(yaml.safe_dump({"providers": [acme]}))
    port = free_port()
    known = {"KEYTURN_BASE_URL": f"http://localhost:{port}", "KEYTURN_SSO_FILE": str(path)}
    with running_web(servers, port=port, **known):
        yield known["KEYTURN_BASE_URL"]


@pytest.mark.slow
def test_in_by_the_provider_until_it_says_otherwise_and_out_of_both(
    visit: Callable[..., Visitor], portal: str, provider: str, world: World
) -> None:
    ana = visit()
    ana.origin = portal
    # The provider's pages take their looks from elsewhere.
    ana.context.route("https://cdn.jsdelivr.net/**", lambda route: route.fulfill(status=200))
    page = ana.go("/catalogue/")
    page.get_by_role("link", name="Continue with Acme").click()
    expect(page.get_by_role("heading", name="Authorize Client")).to_be_visible()
    page.get_by_role("button", name="ana", exact=True).click()
    page.wait_for_url(portal + "/catalogue/")
    user = User.objects.get(email="ana@acme.example")
    profile = world.profile(with_key=True)
    join_group(by=None, user=user, group=profile.requesters)
    one, other = (world.grant(profile=profile, requester=user) for _ in range(2))

    a_minute_later()
    ana.go(f"/grants/{one.pk}/")
    page.get_by_role("button", name=re.compile("^Get credential")).click()
    expect(page.locator("#secret-value")).to_be_visible()

    assert httpx.post(f"{provider}/users/ana/revoke-tokens").status_code == 204
    a_minute_later()
    ana.go(f"/grants/{other.pk}/")
    page.get_by_role("button", name=re.compile("^Get credential")).click()
    expect(page.get_by_role("main")).to_contain_text("Acme no longer stands for you")
    page.get_by_role("link", name="Continue with Acme").click()
    page.get_by_role("button", name="ana", exact=True).click()
    page.wait_for_url(lambda url: "/grants/" in url)

    page.locator(".menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(provider + "/oauth2/end_session*")
    assert "id_token_hint=eyJ" in page.url
    page.get_by_role("button").first.click()
    page.wait_for_url(portal + "/sign-in/")
    assert "/sign-in/" in ana.go("/catalogue/").url
