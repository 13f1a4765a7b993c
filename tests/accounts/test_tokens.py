"""The form of API tokens, against generated input."""

import datetime as dt

import pytest
from django.core.management import call_command
from django.db import DatabaseError, transaction
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from accounts import tokens
from accounts.actions import create_token, token_owner
from accounts.models import ApiToken
from audit import clock
from broker.errors import InvalidInput
from tests.world import World

alphabet = tokens.BASE62 + "_-. \n"


@given(st.integers())
def test_what_was_made_is_understood_and_tells_only_its_id(_: int) -> None:
    token = tokens.generate()
    assert tokens.parse(token.text) == token
    assert token.lookup in token.text
    assert token.text.startswith("kt_pat_")


@given(st.text() | st.text(alphabet=alphabet, min_size=60, max_size=80))
def test_nothing_that_was_not_made_is_understood(text: str) -> None:
    assert tokens.parse(text) is None


@given(st.integers(min_value=0, max_value=71), st.characters())
def test_one_character_changed_and_it_is_not_understood(place: int, character: str) -> None:
    text = tokens.generate().text
    changed = text[:place] + character + text[place + 1 :]
    assert changed == text or tokens.parse(changed) is None


@given(st.sampled_from(["{}\n", "\n{}", " {}", "{} ", "{}\x00", "{0}{0}", "x{}"]))
def test_nothing_may_stand_around_it(around: str) -> None:
    assert tokens.parse(around.format(tokens.generate().text)) is None


def test_no_two_are_alike() -> None:
    made = [tokens.generate() for _ in range(1000)]
    assert len({each.lookup for each in made}) == len({each.text for each in made}) == 1000


def test_what_is_stored_depends_on_this_deployments_key() -> None:
    token = tokens.generate()
    here = tokens.digest(token)
    assert len(here) == 32
    with override_settings(SECRET_KEY="another"):
        assert tokens.digest(token) != here


@pytest.mark.django_db
def test_the_database_alone_opens_nothing(world: World) -> None:
    user = world.person()
    row, text = create_token(by=user, owner=user, name="x")
    found = token_owner(text)
    assert found is not None
    assert found[0] == user
    stored = ApiToken.objects.filter(pk=row.pk).values().get()
    assert text not in str(stored)
    assert text.split("_")[3] not in str(stored)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"days": 0}, "days"),
        ({"days": -1}, "days"),
        ({"days": 91}, "days"),
        ({"name": " "}, "name"),
    ],
)
def test_a_token_that_is_refused(fields: dict[str, object], field: str, world: World) -> None:
    user = world.person()
    with pytest.raises(InvalidInput) as caught:
        create_token(**{"by": user, "owner": user, "name": "x"} | fields)  # type: ignore[arg-type]
    assert list(caught.value.errors) == [field]
    assert not ApiToken.objects.filter(owner=user).exists()


@pytest.mark.django_db
def test_nobody_deactivated_gets_a_token(world: World) -> None:
    user = world.person(is_active=False)
    with pytest.raises(InvalidInput, match="deactivated"):
        create_token(by=user, owner=user, name="x")


@pytest.mark.django_db
def test_postgresql_refuses_a_token_of_more_than_90_days(world: World) -> None:
    user = world.person()
    row, _ = create_token(by=user, owner=user, name="x", days=90)
    with pytest.raises(DatabaseError, match="api_token_at_most_90_days"), transaction.atomic():
        ApiToken.objects.filter(pk=row.pk).update(expires_at=clock.now() + dt.timedelta(days=91))


@pytest.mark.django_db
def test_the_command_prints_a_token_that_opens(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    user = world.person()
    call_command("token", "create", "--owner", user.email, "--name", "a script")
    printed = capsys.readouterr().out.split()
    (text,) = [word for word in printed if tokens.parse(word)]
    found = token_owner(text)
    assert found is not None
    assert found[0] == user
