"""A company's people: who is new, who has left, a program, and what waits."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from accessrequests.models import Grant
from accounts import invitations
from accounts.actions import create_service, create_token, deactivate_user, join_group, name_owner
from accounts.changes import propose
from accounts.models import Group, User
from audit import clock
from credentials.actions import check_out
from tests.accounts.authenticator import authenticator
from tests.world import PASSWORD, PROVED, World, unique


@dataclass(frozen=True)
class Company:
    """Chidi administers; Ana works; Mei has just left, with something not gone yet."""

    chidi: User
    ana: User
    mei: User
    program: User
    group: Group
    grant: Grant


def company(world: World, zone: str) -> Company:
    look: dict[str, Any] = {"time_zone": zone, "password": PASSWORD}
    chidi = world.person(full_name="Chidi Eze", is_administrator=True, **look)
    profile = world.profile(
        endpoint=world.endpoint(name="Support assistant", with_key=True),
        requesters=world.group(),
    )
    group = profile.requesters
    Group.objects.filter(pk=group.pk).update(name="Support engineers")
    group.refresh_from_db()
    ana = world.person(group, full_name="Ana Castillo", manager=chidi, **look)
    mei = world.person(group, full_name="Maximiliane Freifrau von Hohenstein-Wetterau", **look)
    for person in (ana, mei):
        authenticator(person)
    name_owner(by=None, group=group, user=ana)
    program = create_service(
        by=None,
        email=f"nightly-{unique()}@service.example.com",
        full_name="Nightly evaluation",
        owner=ana,
        ends_at=clock.now() + dt.timedelta(days=60),
    )
    join_group(by=None, user=program, group=group)
    create_token(by=ana, owner=program, name="The nightly job")
    create_token(by=ana, owner=ana, name="Notebook")
    noor = world.person(full_name="Noor Haddad", time_zone=zone)
    invitations.invite(by=chidi, person=noor, proofs=PROVED)
    propose(
        by=chidi,
        kind="group_member",
        about=group,
        payload={"person": str(noor.pk)},
        reason="Joins the support team on Monday.",
        proofs=PROVED,
    )
    propose(
        by=chidi,
        kind="factor_reset",
        about=ana,
        payload={},
        reason="Lost her phone on the train; I spoke with her in person.",
        proofs=PROVED,
    )
    check_out(by=ana, grant_id=world.grant(profile=profile, requester=ana).pk)
    grant = world.grant(profile=profile, requester=mei)
    check_out(by=mei, grant_id=grant.pk)
    deactivate_user(by=chidi, user=mei, proofs=PROVED)
    return Company(chidi, ana, mei, program, group, grant)


def paths(at: Company) -> dict[str, str]:
    """The pages that an administrator has of them, by name."""
    return {
        "people": "/people/",
        "people-nothing": "/people/?q=zzz",
        "person": f"/people/{at.ana.pk}/",
        "person-access": f"/people/{at.ana.pk}/access/",
        "person-leaving": f"/people/{at.mei.pk}/access/",
        "service-accounts": "/service-accounts/",
        "service-account": f"/people/{at.program.pk}/",
        "groups": "/groups/",
        "group": f"/groups/{at.group.pk}/",
        "group-new": "/groups/new/",
    }


OWN = {
    "profile": "/settings/profile/",
    "sessions": "/settings/sessions/",
    "tokens": "/settings/tokens/",
}
