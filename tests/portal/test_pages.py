"""Signing in and out, the catalogue, the record, and what holds for every page."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from audit.events import Event
from audit.models import AuditEvent
from tests.world import PASSWORD, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]


def _sign_in(client: Client, email: str, password: str, **more: str) -> Any:
    return client.post(reverse("sign-in"), {"username": email, "password": password, **more})


def test_signing_in_and_out(world: World) -> None:
    user = world.person(password=PASSWORD)
    client = Client()
    response = _sign_in(client, user.email.upper(), PASSWORD, next=reverse("catalogue"))
    assert response["Location"] == reverse("catalogue")
    assert client.get(reverse("home")).status_code == 200
    assert client.get(reverse("sign-out")).status_code == 405
    client.post(reverse("sign-out"))
    assert client.get(reverse("home")).status_code == 302
    events = AuditEvent.objects.filter(actor_id=user.pk).values_list("event", flat=True)
    assert {Event.SIGNED_IN, Event.SIGNED_OUT} <= set(events)


def test_unknown_wrong_and_deactivated_sound_the_same(world: World) -> None:
    user = world.person(password=PASSWORD)
    gone = world.person(password=PASSWORD, is_active=False)
    answers = {
        re.sub(r'value="[^"]*"', "", _sign_in(Client(), email, password).content.decode())
        for email, password in [
            ("nobody@example.com", PASSWORD), (user.email, "wrong"), (gone.email, PASSWORD)
        ]
    }  # fmt: skip
    assert len(answers) == 1
    assert "No account has this email and password" in answers.pop()


def test_too_many_tries(world: World) -> None:
    user = world.person(password=PASSWORD)
    for _ in range(5):
        assert _sign_in(Client(), user.email, "wrong").status_code == 400
    response = _sign_in(Client(), user.email, PASSWORD)
    assert response.status_code == 429
    assert "Wait 15 minutes" in response.content.decode()


@pytest.mark.parametrize(
    "where", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"]
)
def test_signing_in_leads_nowhere_else(world: World, where: str) -> None:
    user = world.person(password=PASSWORD)
    assert _sign_in(Client(), user.email, PASSWORD, next=where)["Location"] == reverse("home")


def test_a_form_without_its_mark(world: World, signed_in: Any) -> None:
    grant = world.grant()
    client = signed_in(grant.holder, csrf=True)
    response = client.post(reverse("grant-end", kwargs={"pk": grant.pk}))
    assert response.status_code == 403
    assert "too old to be sent" in response.content.decode()
    grant.refresh_from_db()
    assert grant.ended_at is None


def test_giving_back(world: World, signed_in: Any) -> None:
    grant = world.grant()
    page = (
        signed_in(grant.holder)
        .post(reverse("grant-end", kwargs={"pk": grant.pk}), follow=True)
        .content.decode()
    )
    grant.refresh_from_db()
    assert grant.end_reason == "given_back"
    assert "You gave it back early" in page


def test_the_catalogue_is_searched_and_filtered(world: World, signed_in: Any) -> None:
    group = world.group()
    staging = world.endpoint(environment="staging", with_key=False)
    world.profile(endpoint=staging, requesters=group, models=["only-here"])
    other = world.profile(requesters=group).endpoint
    hidden = world.profile().endpoint
    client = signed_in(world.person(group))

    def names(query: str, **headers: str) -> str:
        page: str = client.get(reverse("catalogue") + query, headers=headers).content.decode()
        return page

    assert staging.name in names("")
    assert other.name in names("")
    assert hidden.name not in names("")
    assert staging.name in names("?q=only-here")
    assert other.name not in names("?q=only-here")
    assert other.name not in names("?environment=staging")
    assert other.name in names("?environment=no-such")
    assert "Nothing matches" in names("?q=%00zzz")
    part = names("?q=only", **{"HX-Request": "true", "HX-Target": "results"})
    assert "<html" not in part
    assert staging.name in part


def test_the_record_is_searched_and_paged(world: World, signed_in: Any) -> None:
    auditor = world.person(is_auditor=True)
    for _ in range(60):
        world.group()
    client = signed_in(auditor)
    page = client.get(reverse("record") + "?about=group").content.decode()
    older = re.search(r'href="(\?[^"]*before=\d+)"', page)
    assert older
    assert page.count("/record/") >= 50
    second = client.get(reverse("record") + older[1].replace("&amp;", "&")).content.decode()
    assert "created group" in second
    assert "Nothing matches" in client.get(reverse("record") + "?q=zzzzz").content.decode()
    assert client.get(reverse("record") + "?before=abc&about=%27").status_code == 200


def _every_page(world: World, client: Client, user: Any, grant: Any) -> list[Any]:
    row = AuditEvent.objects.filter(subject_id=grant.pk).latest("id")
    paths = [
        reverse("home"),
        reverse("catalogue"),
        reverse("approvals"),
        reverse("approvals-decided"),
        reverse("approvals-others"),
        reverse("approvals-figures"),
        reverse("requests"),
        reverse("record"),
        reverse("record-event", kwargs={"pk": row.pk}),
        reverse("endpoint", kwargs={"slug": grant.request.profile.endpoint.slug}),
        reverse("request-new", kwargs={"profile_id": grant.request.profile_id}),
        reverse("request", kwargs={"pk": grant.request_id}),
        reverse("grant", kwargs={"pk": grant.pk}),
    ]
    pages = [client.get(path) for path in paths]
    pages.append(client.get("/grants/no-such-thing/"))
    pages.append(client.post(reverse("grant-check-out", kwargs={"pk": grant.pk})))
    pages.append(Client().get(reverse("sign-in")))
    return pages


def test_no_page_has_anything_inline(world: World, signed_in: Any) -> None:
    grant = world.grant()
    client = signed_in(grant.holder)
    for page in _every_page(world, client, grant.holder, grant):
        html = page.content.decode()
        where = page.request["PATH_INFO"]
        assert not re.search(r"\sstyle\s*=", html), where
        assert not re.search(r"<style", html), where
        assert not re.search(r"<script(?![^>]*\ssrc=)", html), where
        assert not re.search(r"\son[a-z]+\s*=", html), where
        assert "hx-on" not in html, where
        policy = page["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_no_page_is_kept_by_a_cache(world: World, signed_in: Any) -> None:
    grant = world.grant()
    client = signed_in(grant.holder)
    for page in _every_page(world, client, grant.holder, grant):
        if page.status_code == 200:
            assert "no-store" in page["Cache-Control"], page.request["PATH_INFO"]


def test_a_session_that_ended_under_an_open_page_reloads_all_of_it() -> None:
    response = Client().get(reverse("sign-in"), headers={"HX-Request": "true"})
    assert response["HX-Refresh"] == "true"


def test_the_home_page_asks_the_database_little(
    world: World, signed_in: Any, django_assert_max_num_queries: Any
) -> None:
    user = world.person()
    profiles = [world.profile() for _ in range(4)]
    from accounts.actions import join_group

    for profile in profiles:
        join_group(by=None, user=user, group=profile.requesters)
        world.grant(profile=profile, requester=user)
    client = signed_in(user)
    with django_assert_max_num_queries(30):
        client.get(reverse("home"))


def test_pages_for_what_no_view_answers(rf: Any, signed_in: Any, world: World) -> None:
    from broker import views

    request = rf.get("/")
    assert "failed at that" in views.server_error(request).content.decode()
    assert "could not be read" in views.bad_request(request, Exception()).content.decode()
    assert "may not do that" in views.forbidden(request, Exception()).content.decode()
    page = signed_in(world.person()).get("/no/such/page")
    assert page.status_code == 404
    assert "nothing that you may see" in page.content.decode()


def test_a_part_of_a_page_that_is_too_old(world: World, signed_in: Any) -> None:
    row = world.request()
    client = signed_in(row.requester, csrf=True)
    response = client.post(
        reverse("request-review", kwargs={"pk": row.pk}), headers={"HX-Request": "true"}
    )
    assert response.status_code == 403
    assert "Reload it" in response.content.decode()
    assert "<html" not in response.content.decode()
