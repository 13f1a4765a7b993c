"""Each GET of the OpenAPI document takes as many queries for one row as for many."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from accessrequests.actions import comment, hand_over, note_absence
from accessrequests.models import Grant
from accessrequests.states import RequestState
from accounts.actions import join_group
from accounts.changes import propose
from audit import clock
from credentials.actions import check_out
from credentials.stopping import lift, stop
from endpoints.actions import set_price
from endpoints.models import AccessProfile
from notifications.kinds import Kind
from notifications.outbox import notify
from tests.api.callers import Caller, document
from tests.gateway.using import call
from tests.world import PROVED, World

MORE = 3
# Lists that the scene fills. Others are looked at too, as they are.
FILLED = {
    f"/api/v1/{name}/"
    for name in (
        "endpoints",
        "profiles",
        "requests",
        "approvals",
        "approvals/decided",
        "absences",
        "policies",
        "changes",
        "people",
        "groups",
        "grants",
        "live",
        "stops",
        "credentials",
        "notifications",
    )
}


class Scene:
    """One of each thing, all seen by one administrator who also reviews."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reader = world.person(is_administrator=True, is_auditor=True)
        self.caller = Caller(self.reader)
        self.at = 0
        self.profile = self._profile()
        self.requester = world.person(self.profile.requesters)
        self.pending = world.request(profile=self.profile, requester=self.requester)
        self.grant = self._grant(self.profile)
        self.more()

    def _profile(self) -> AccessProfile:
        profile = self.world.profile(with_key=True)
        join_group(by=None, user=self.reader, group=profile.reviewers)
        return profile

    def _grant(self, profile: AccessProfile) -> Grant:
        grant = self.world.grant(
            profile=profile, requester=self.world.person(profile.requesters), reviewer=self.reader
        )
        check_out(by=grant.holder, grant_id=grant.pk)
        return grant

    def more(self) -> None:
        """One more of each, of its own and of what there is."""
        world, profile, by = self.world, self._profile(), self.reader
        self.at += 1
        grant = self._grant(profile)
        call(self.grant, ago=self.at)
        world.request(profile=profile, requester=grant.holder)
        world.request(RequestState.DENIED, profile=profile, requester=grant.holder)
        comment(by=by, request_id=self.pending.pk, text="Soon.")
        colleague = world.person(self.profile.reviewers, self.profile.requesters)
        hand_over(by=by, request_id=self.pending.pk, to=colleague.email)
        begin = clock.now() + dt.timedelta(days=2 * self.at)
        note_absence(by=by, starts_at=begin, ends_at=begin + dt.timedelta(days=1))
        world.policy(profile=profile)
        endpoint = world.endpoint(with_key=False)
        lift(
            by=by,
            stop_id=stop(by=by, endpoint=endpoint, reason="Leaked.", proofs=PROVED).pk,
            proofs=PROVED,
        )
        set_price(
            by=by,
            endpoint=self.profile.endpoint,
            model=f"m-{self.at}",
            input_price=Decimal(1),
            output_price=Decimal(2),
            proofs=PROVED,
        )
        propose(
            by=world.person(is_administrator=True),
            kind="group_member",
            about=profile.requesters,
            payload={"person": str(world.person().pk)},
            reason="Joins.",
            proofs=PROVED,
        )
        with transaction.atomic():
            notify(
                Kind.DECIDED, to=[by], about=grant, path="/", sentence="x", occasion=str(self.at)
            )

    def path(self, template: str) -> str | None:
        """The address of one, where the scene has one."""
        ids = {
            "requests": self.pending.pk,
            "grants": self.grant.pk,
            "credentials": self.grant.credentials.get().pk,
            "endpoints": self.profile.endpoint_id,
            "profiles": self.profile.pk,
            "people": self.requester.pk,
            "groups": self.profile.requesters_id,
        }
        if "{" not in template:
            return template
        key = ids.get(template.split("/")[3])
        filled = template.replace("{id}", str(key))
        return None if key is None or "{" in filled else filled


def reads() -> Iterator[tuple[str, dict[str, str]]]:
    """Each GET, and again with all that it expands."""
    for template, verbs in document()["paths"].items():
        operation = verbs.get("get")
        if operation is None or template.endswith(("/schema/", "/docs/")):
            continue
        yield template, {}
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "expand":
                yield template, {"expand": ",".join(parameter["schema"]["items"]["enum"])}


def counted(scene: Scene) -> tuple[dict[str, int], dict[str, int]]:
    """How many queries each takes, and how many rows each list has."""
    queries, rows = {}, {}
    for template, query in reads():
        path = scene.path(template)
        if path is None:
            continue
        name = path.removeprefix("/api/v1/")
        for _ in range(2):  # the second finds caches as any later one does
            with CaptureQueriesContext(connection) as caught:
                answer = scene.caller.get(name, **query)
        assert answer.status_code == 200, (path, query, answer.content)
        queries[f"{template} {query}"] = len(caught)
        body = answer.json()
        rows[template] = len(body["results"]) if "results" in body else len(body)
    return queries, rows


@pytest.mark.django_db
def test_many_rows_take_as_many_queries_as_one(world: World) -> None:
    scene = Scene(world)
    few, rows = counted(scene)
    for _ in range(MORE):
        scene.more()
    many, more = counted(scene)
    assert {each for each in FILLED if more[each] < rows[each] + MORE} == set()
    assert {each: (few[each], many[each]) for each in few if few[each] != many[each]} == {}
    assert max(many.values()) < 40
