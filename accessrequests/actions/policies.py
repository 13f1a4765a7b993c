"""Policies: new versions, and what they govern."""

from typing import Any

from django.db import connection, transaction
from django.db.models import Q

from accessrequests.facts import sources_of
from accessrequests.models import Policy, PolicyBinding, PolicyVersion
from accessrequests.permissions import check_administer
from accessrequests.policy.document import PolicyDocument, Reviewers
from accessrequests.policy.effective import DEFAULT
from accessrequests.policy.narrowing import always_asks, narrower
from accounts.changes import propose
from accounts.linked import check_second
from accounts.models import Change, Group, User
from accounts.preconditions import ANYTHING, Expected
from accounts.stepup import Proofs
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput, NotFound
from endpoints.models import AccessProfile, Endpoint

NOTE_LENGTH = 300


def check_policy(*, by: User | None, document: PolicyDocument) -> None:
    """Raise what `save_policy` would; writes nothing."""
    if by is not None:
        check_administer(by)
    check_document(document)


def check_document(document: PolicyDocument) -> None:
    """Raise InvalidInput where it couldn't be a policy at this moment."""
    errors = _unknown(document) | _dead_ends(document)
    _governed(document, errors)
    if errors:
        raise InvalidInput(errors)


def change_policy(
    *,
    by: User,
    document: PolicyDocument,
    note: str,
    proofs: Proofs,
    expected: Expected = ANYTHING,
) -> Change | None:
    """Make this the policy's text, or have it wait for a second administrator where it isn't
    certainly narrower than what holds; the change that waits, or None if it was done.

    Raises Forbidden, StepUpNeeded, PreconditionFailed, Conflict where another change of it waits,
    and InvalidInput as `save_policy` does, and for a note that is missing.
    """
    check_administer(by)
    return _propose(by, _row(document.slug), document.as_data(), note, proofs, expected)


def end_policy(
    *, by: User, slug: str, proofs: Proofs, expected: Expected = ANYTHING
) -> Change | None:
    """Retire a policy, or have that wait for a second administrator where the built-in one is less
    strict. Raises as `change_policy` does, and NotFound."""
    check_administer(by)
    row = _row(slug)
    if row is None:
        raise NotFound(kind="policy", id=slug)
    return _propose(by, row, None, "Retire it.", proofs, expected)


def _row(slug: str) -> Policy | None:
    return Policy.objects.filter(slug=slug, current__isnull=False).first()


def _propose(
    by: User,
    row: Policy | None,
    data: dict[str, Any] | None,
    note: str,
    proofs: Proofs,
    expected: Expected,
) -> Change | None:
    try:
        return propose(
            by=by,
            kind="policy",
            about=row,
            payload={"document": data, "note": note},
            reason=note,
            proofs=proofs,
            expected=expected,
        )
    except InvalidInput as error:
        if "reason" not in error.errors:
            raise
        raise InvalidInput({"note": error.errors["reason"]}) from error


def widens(policy: Policy | None, document: PolicyDocument | None) -> bool:
    """Whether anybody might do more once this is the policy's text, or once it is retired
    (None)."""
    ours = None if policy is None or policy.retired_at is not None else policy.current
    before = None if ours is None else ours.parsed()
    if before is not None and document is not None and before.applies_to == document.applies_to:
        return not narrower(before, document)
    for profile in profiles_of(policy, document):
        name, slug = f"{profile.endpoint.slug}/{profile.slug}", profile.endpoint.slug
        held, holds = (
            each is not None
            and (name in each.applies_to.profiles or slug in each.applies_to.endpoints)
            for each in (before, document)
        )
        others = [s for s in sources_of(profile) if policy is None or s.slug != policy.slug]
        if held and not holds and others:
            # Theirs alone remains, with nothing to hold ours against.
            return True
        if not held and holds and others:
            # The strictest of each item holds: one more makes it no wider, unless somebody is
            # asked only because nobody else would be.
            if not always_asks(step for each in others for step in each.document.steps):
                return True
            continue
        was = before if held and before is not None else DEFAULT
        will_be = document if holds and document is not None else DEFAULT
        if not narrower(was, will_be):
            return True
    return False


def profiles_of(policy: Policy | None, document: PolicyDocument | None) -> list[AccessProfile]:
    """The profiles that a policy governs, and those that it would with this text."""
    governed = Q()
    if policy is not None:
        governed |= Q(policy_binding__policy=policy) | Q(endpoint__policy_binding__policy=policy)
    if document is not None:
        governed |= Q(endpoint__slug__in=document.applies_to.endpoints)
        for name in document.applies_to.profiles:
            endpoint, _, slug = name.partition("/")
            governed |= Q(endpoint__slug=endpoint, slug=slug)
    if not governed:
        return []
    rows = AccessProfile.objects.filter(governed).select_related("endpoint__owner")
    return list(rows.distinct())


@transaction.atomic
def save_policy(
    *,
    by: User | None,
    document: PolicyDocument,
    note: str = "",
    proposed_by: User | None = None,
) -> tuple[Policy, bool]:
    """Make this the policy's current version; whether that changed anything.

    By an operator at the host (None), or, where it might let anybody do more, by the second of
    two administrators: see `change_policy`. Requests keep what they were filed under, and are held
    to the stricter of the two. Raises Forbidden, SecondPerson, and InvalidInput by dotted key for
    groups, people, profiles and endpoints that don't exist, what another policy governs already,
    and steps that nobody could take.
    """
    if by is not None:
        check_administer(by)
    one_at_a_time()
    policy, _ = Policy.objects.get_or_create(slug=document.slug)
    policy = Policy.objects.select_for_update(of=("self",)).get(pk=policy.pk)
    errors = _unknown(document) | _dead_ends(document)
    if len(note) > NOTE_LENGTH:
        errors["note"] = f"Must be at most {NOTE_LENGTH} characters."
    governed = _governed(document, errors)
    if errors:
        raise InvalidInput(errors)
    data = document.as_data()
    current = policy.current
    if current is not None and policy.retired_at is None and current.document == data:
        return policy, False
    check_second(by, proposed_by, wider=by is not None and widens(policy, document))
    number = (policy.versions.values_list("number", flat=True).first() or 0) + 1
    version = PolicyVersion.objects.create(
        policy=policy,
        number=number,
        document=data,
        note=note.strip(),
        created_by=_author(by, proposed_by),
    )
    policy.current, policy.retired_at = version, None
    policy.save(update_fields=["current", "retired_at"])
    policy.bindings.all().delete()
    PolicyBinding.objects.bulk_create(
        PolicyBinding(
            policy=policy,
            profile=row if isinstance(row, AccessProfile) else None,
            endpoint=row if isinstance(row, Endpoint) else None,
        )
        for row in governed
    )
    record(
        Event.POLICY_CHANGED if number > 1 else Event.POLICY_CREATED,
        by=by,
        about=policy,
        related=tuple(governed),
        version=number,
        note=note.strip(),
    )
    return policy, True


def _author(by: User | None, proposed_by: User | None) -> str:
    if by is None:
        return "Keyturn"
    return f"{proposed_by}, agreed to by {by}"[:254] if proposed_by is not None else str(by)


@transaction.atomic
def retire_policy(*, by: User | None, slug: str, proposed_by: User | None = None) -> Policy:
    """End a policy: what it governed is under the built-in one again.

    By whom, as in `save_policy`. Raises Forbidden, SecondPerson and NotFound.
    """
    if by is not None:
        check_administer(by)
    one_at_a_time()
    policy = Policy.objects.select_for_update(of=("self",)).filter(slug=slug).first()
    if policy is None or policy.current is None:
        raise NotFound(kind="policy", id=slug)
    if policy.retired_at is None:
        check_second(by, proposed_by, wider=by is not None and widens(policy, None))
        policy.retired_at = clock.now()
        policy.save(update_fields=["retired_at"])
        policy.bindings.all().delete()
        record(Event.POLICY_RETIRED, by=by, about=policy)
    return policy


def one_at_a_time() -> None:
    """Let nobody else change policies until this is committed."""
    # Two at once must not both take a number, nor two policies one profile. Readers don't wait.
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE accessrequests_policybinding IN SHARE ROW EXCLUSIVE MODE")


def stored() -> list[PolicyDocument]:
    """The current text of each policy that isn't retired, by slug."""
    rows = Policy.objects.filter(retired_at=None, current__isnull=False).select_related("current")
    return [row.current.parsed() for row in rows.order_by("slug") if row.current is not None]


def _named(document: PolicyDocument) -> list[tuple[str, Reviewers]]:
    found = []
    for at, step in enumerate(document.steps):
        found.append((f"steps.{at}.reviewers", step.reviewers))
        found += [
            (f"steps.{at}.escalation.{number}.to", entry.to)
            for number, entry in enumerate(step.escalation)
        ]
    return found


def _unknown(document: PolicyDocument) -> dict[str, str]:
    """Groups and people who don't exist, by key."""
    groups = {slug for _, named in _named(document) for slug in named.groups}
    groups |= set(document.break_glass.groups) if document.break_glass else set()
    emails = {email for _, named in _named(document) for email in named.people}
    known = set(Group.objects.filter(slug__in=groups).values_list("slug", flat=True))
    people = set(
        User.objects.active().filter(email__in=emails, owner=None).values_list("email", flat=True)
    )
    errors = {}
    for key, named in _named(document):
        if lacking := set(named.groups) - known:
            errors[f"{key}.groups"] = f"No such group: {', '.join(sorted(lacking))}."
        if lacking := set(named.people) - people:
            errors[f"{key}.people"] = f"No such active person: {', '.join(sorted(lacking))}."
    if document.break_glass and (lacking := set(document.break_glass.groups) - known):
        errors["break_glass.groups"] = f"No such group: {', '.join(sorted(lacking))}."
    return errors


def _dead_ends(document: PolicyDocument) -> dict[str, str]:
    """Steps that too few people could take whoever asks; what depends on the ask is left to it."""
    errors = {}
    for at, step in enumerate(document.steps):
        people = User.objects.active().filter(owner=None)
        fallback = step.escalation[-1].to if step.escalation else None
        if fallback and not people.filter(memberships__group__slug__in=fallback.groups).exists():
            errors[f"steps.{at}.escalation.{len(step.escalation) - 1}.to.groups"] = (
                "The fallback group has no active member."
            )
        reached = [step.reviewers, *(entry.to for entry in step.escalation)]
        if any(r.endpoint_owner or r.requester_manager or r.profile_reviewers for r in reached):
            continue
        count = (
            people.filter(memberships__group__slug__in={g for r in reached for g in r.groups})
            | people.filter(email__in={email for r in reached for email in r.people})
        ).distinct()
        if count.count() < step.approvals:
            errors[f"steps.{at}.approvals"] = (
                f"Asks for {step.approvals} people, and {count.count()} could approve: "
                "a request would never be decided."
            )
    return errors


def _governed(document: PolicyDocument, errors: dict[str, str]) -> list[AccessProfile | Endpoint]:
    """The profiles and endpoints that it names; what is wrong with them is added to `errors`."""
    found: list[AccessProfile | Endpoint] = []
    taken = {
        (binding.profile_id or binding.endpoint_id): binding.policy
        for binding in PolicyBinding.objects.exclude(policy__slug=document.slug).select_related(
            "policy"
        )
    }
    for at, name in enumerate(document.applies_to.profiles):
        endpoint, _, slug = name.partition("/")
        profile = AccessProfile.objects.filter(endpoint__slug=endpoint, slug=slug).first()
        if profile is None:
            errors[f"applies_to.profiles.{at}"] = f"There is no profile {name}."
        elif profile.pk in taken:
            errors[f"applies_to.profiles.{at}"] = f"{taken[profile.pk]} governs {name} already."
        else:
            found.append(profile)
    for at, slug in enumerate(document.applies_to.endpoints):
        row = Endpoint.objects.filter(slug=slug).first()
        if row is None:
            errors[f"applies_to.endpoints.{at}"] = f"There is no endpoint {slug}."
        elif row.pk in taken:
            errors[f"applies_to.endpoints.{at}"] = f"{taken[row.pk]} governs {slug} already."
        else:
            found.append(row)
    return list(dict.fromkeys(found))
