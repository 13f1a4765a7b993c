"""A real provider: the tests' own OpenBao, where a person has an entity and a password."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from django.conf import settings
from django.test import Client

from accounts.models import ProviderSignIn, Session, User
from accounts.sso import actions
from broker.errors import SignInAgain
from tests.servers import Servers
from tests.sso.providers import configured
from tests.sso.test_standing import a_minute_later
from tests.world import PASSWORD, unique

pytestmark = pytest.mark.django_db
EMAIL = '{"email": {{identity.entity.metadata.email}}, "email_verified": true}'
GROUPS = '{"groups": {{identity.entity.groups.names}}}'


@dataclass
class Company:
    """A namespace of OpenBao as a company has one, with Ana in it."""

    servers: Servers
    namespace: str
    email: str
    entity: str

    def ask(self, method: str, path: str, body: dict[str, object] | None = None) -> dict:  # type: ignore[type-arg]
        return self.servers.vault(method, path, body, namespace=self.namespace)

    @property
    def at(self) -> str:
        return f"{self.servers.vault_addr}/v1/{self.namespace}"

    @property
    def issuer(self) -> str:
        return f"{self.at}/identity/oidc/provider/default"

    def consents(self, location: str) -> str:
        """As Ana's browser does on OpenBao's page: the query to come back with."""
        login = httpx.post(
            f"{self.at}/auth/userpass/login/ana", json={"password": PASSWORD}, timeout=60
        )
        token = login.json()["auth"]["client_token"]
        asked = dict(parse_qsl(urlsplit(location).query))
        answer = httpx.get(
            f"{self.issuer}/authorize",
            params=asked,
            headers={"X-Vault-Token": token},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return f"code={answer.json()['code']}&state={answer.json()['state']}"


@pytest.fixture(scope="module")
def company(servers: Servers) -> Iterator[Company]:
    made = Company(servers, f"acme-{unique()}", f"ana.{unique()}@example.com", "")
    servers.vault("POST", f"sys/namespaces/{made.namespace}", {}, namespace="")
    made.ask("POST", "sys/auth/userpass", {"type": "userpass"})
    made.ask("POST", "auth/userpass/users/ana", {"password": PASSWORD})
    person = made.ask("POST", "identity/entity", {"name": "ana", "metadata": {"email": made.email}})
    made.entity = person["data"]["id"]
    mount = made.ask("GET", "sys/auth")["data"]["userpass/"]["accessor"]
    made.ask(
        "POST",
        "identity/entity-alias",
        {"name": "ana", "canonical_id": made.entity, "mount_accessor": mount},
    )
    made.ask("POST", "identity/group", {"name": "ml", "member_entity_ids": [made.entity]})
    made.ask("POST", "identity/oidc/scope/email", {"template": EMAIL})
    made.ask("POST", "identity/oidc/scope/groups", {"template": GROUPS})
    made.ask(
        "POST",
        "identity/oidc/provider/default",
        {"allowed_client_ids": ["*"], "scopes_supported": ["email", "groups"]},
    )
    yield made
    servers.vault("DELETE", f"sys/namespaces/{made.namespace}", namespace="")


def test_signing_in_by_openbao_until_the_person_is_disabled_there(company, world, tmp_path):
    slug, group = f"acme-{unique()}", world.group()
    back = f"{settings.KEYTURN_BASE_URL}/sso/{slug}/callback/"
    company.ask(
        "POST",
        "identity/oidc/client/keyturn",
        {"redirect_uris": [back], "assignments": ["allow_all"], "key": "default"},
    )
    client = company.ask("GET", "identity/oidc/client/keyturn")["data"]
    with configured(
        tmp_path,
        company.issuer,
        slug=slug,
        client_id=client["client_id"],
        client_secret=client["client_secret"],
        scopes=["openid", "email", "groups"],
        new_accounts=True,
        groups={"members": {"ml": group.slug}},
    ):
        browser = Client()
        away = browser.get(f"/sso/{slug}/login/")["Location"]
        query = company.consents(away)
        assert browser.get(f"/sso/{slug}/callback/?{query}")["Location"] == "/"
        user = User.objects.get(email=company.email)
        assert (group.has(user), browser.get("/").status_code) == (True, 200)
        row = ProviderSignIn.objects.get(person=user)
        a_minute_later()
        actions.ask_again(key=row.pk)
        company.ask("POST", f"identity/entity/id/{company.entity}", {"disabled": True})
        a_minute_later()
        with pytest.raises(SignInAgain):
            actions.ask_again(key=row.pk)
        assert not Session.objects.filter(person=user).exists()
        assert "/sign-in/" in browser.get("/")["Location"]
