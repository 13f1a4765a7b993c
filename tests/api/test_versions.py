"""What is to go says so in every answer and in the document; what replaces it does the same."""

import datetime as dt
from typing import Any

import pytest
from django.conf import settings

from endpoints.models import Endpoint, ModelPrice
from tests.api.callers import Caller, document, problem
from tests.world import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

PRICE = {"model": "demo-small", "input_price": "0.15", "output_price": "0.6"}


@pytest.fixture
def endpoint(world: World) -> Endpoint:
    return world.endpoint(with_key=False)


def assert_going(answer: Any, successor: str | None) -> None:
    since = dt.datetime.fromtimestamp(int(answer["Deprecation"].removeprefix("@")), dt.UTC)
    sunset = dt.datetime.strptime(answer["Sunset"], "%a, %d %b %Y %H:%M:%S GMT")  # noqa: DTZ007
    # Whoever is told today has half a year: docs/api.md promises it.
    assert sunset.date() - since.date() >= dt.timedelta(days=183)
    assert 'rel="deprecation"' in answer["Link"]
    link = f'<{settings.KEYTURN_BASE_URL}/api/v1/{successor}>; rel="successor-version"'
    assert (link in answer["Link"]) == (successor is not None)


def test_prices_go_by_the_endpoints_id(endpoint: Endpoint) -> None:
    owner = Caller(endpoint.owner)
    old, new = f"endpoints/{endpoint.slug}/prices/", f"endpoints/{endpoint.pk}/prices/"
    assert owner.post(new, PRICE).status_code == 201
    assert_going(owner.post(old, PRICE | {"model": "demo-large"}), new)
    assert ModelPrice.objects.filter(endpoint=endpoint).count() == 2
    by_slug, by_id = owner.get(old), owner.get(new)
    assert by_slug.json()["results"] == by_id.json()["results"]
    assert_going(by_slug, new)
    assert not {"Deprecation", "Sunset", "Link"} & set(by_id.headers)


def test_a_refusal_says_so_too_and_tells_no_id(endpoint: Endpoint, world: World) -> None:
    stranger = Caller(world.person())
    answer = stranger.get(f"endpoints/{endpoint.slug}/prices/")
    problem(answer, 404, "not-found")
    assert_going(answer, None)
    assert str(endpoint.pk) not in str(answer.headers)
    nobody = Caller(None).get(f"endpoints/{endpoint.slug}/prices/")
    problem(nobody, 401, "not-signed-in")
    assert_going(nobody, None)


def test_the_document_marks_it() -> None:
    going = {
        (path, verb)
        for path, verbs in document()["paths"].items()
        for verb, operation in verbs.items()
        if operation.get("deprecated")
    }
    path = "/api/v1/endpoints/{slug}/prices/"
    assert going == {(path, "get"), (path, "post")}
    assert "ends on 2027-06-30" in document()["paths"][path]["get"]["description"]
