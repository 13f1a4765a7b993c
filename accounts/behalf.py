"""On whose behalf a service account may act: its owner's, and theirs who let it."""

from django.db.models import Exists, OuterRef, Q

from accounts.models import AgentConsent, User


def let_by(person: str, agent: str) -> Q:
    """Rows whose person, at one path, lets their agent, at another, act for them now."""
    standing = AgentConsent.objects.standing()
    given = standing.filter(person=OuterRef(person), agent=OuterRef(agent))
    owned = User.objects.filter(pk=OuterRef(agent), owner=OuterRef(person))
    return Exists(owned) | Exists(given)


def may_act_for(agent: User, person: User) -> bool:
    """Whether this service account may ask on this person's behalf at this moment, by the rows."""
    given = AgentConsent.objects.standing().filter(person=person, agent=agent)
    found = User.objects.active().filter(Q(service_accounts=agent) | Q(Exists(given)))
    return found.filter(pk=person.pk, owner=None).exists()


def person_behind(agent: User, email: str) -> User | None:
    """The person with this e-mail address, if this service account may act for them; None alike
    for one who is nobody's and for one whose owner hasn't let it."""
    email = User.objects.normalize_email(email)
    # PostgreSQL refuses to look for what it can't hold.
    if not email.isprintable():
        return None
    person = User.objects.active().filter(email=email, owner=None).first()
    return person if person is not None and may_act_for(agent, person) else None
