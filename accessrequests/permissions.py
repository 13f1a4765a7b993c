"""Who may. What the state of things allows is another question: see actions."""

import json

from django.db.models import BooleanField, F, Func, Q, Value

from accessrequests.models import AccessRequest, Grant, PolicyVersion
from accessrequests.policy.document import Reviewers
from accessrequests.routing import in_words, may_decide
from accounts.linked import are_linked
from accounts.models import User
from broker.errors import Forbidden, KeyturnError, SelfReview
from endpoints.models import AccessProfile, Endpoint


def check_review(user: User, request: AccessRequest) -> None:
    """Raise unless this person may review this request's current step: SelfReview, or Forbidden."""
    if request.is_own(user):
        raise SelfReview
    if not may_decide(user, request, request.step):
        step = request.policy["steps"][request.step]
        named = in_words(Reviewers.model_validate(step["reviewers"]), request.profile)
        raise Forbidden(f"Only {named} may review this request.")


def can_review(user: User, request: AccessRequest) -> bool:
    """Whether this person may review this request's current step."""
    try:
        check_review(user, request)
    except KeyturnError:
        return False
    return True


def check_comment(user: User, request: AccessRequest) -> None:
    """Raise Forbidden unless this person has a part in the request: asks, decides, or did."""
    if (
        request.is_own(user)
        or request.reviews.filter(reviewer=user).exists()
        or any(may_decide(user, request, at) for at in range(len(request.policy["steps"])))
    ):
        return
    raise Forbidden("Only the requester and those who may decide comment on a request.")


def can_comment(user: User, request: AccessRequest) -> bool:
    """Whether this person may comment on this request."""
    try:
        check_comment(user, request)
    except Forbidden:
        return False
    return True


def check_administer(user: User) -> None:
    """Raise Forbidden unless this person may write policies."""
    if not (user.is_active and user.is_administrator):
        raise Forbidden("Only administrators change policies.")


def check_cancel(user: User, request: AccessRequest) -> None:
    """Raise Forbidden unless this person may take the request back."""
    if not request.is_own(user):
        raise Forbidden("Only the requester may cancel a request.")


def check_hold(user: User, grant: Grant) -> None:
    """Raise Forbidden unless this person may check out under this grant."""
    if grant.holder_id != user.pk:
        raise Forbidden("Only the person whom it was granted to may check out.")


def can_end(user: User, grant: Grant) -> bool:
    """Whether this person may end this grant: its holder, on whose behalf it is held, those who
    review its request or the profile, the endpoint's owner, an administrator."""
    request = grant.request
    profile = request.profile
    return user.is_active and (
        are_linked(user, grant.holder)
        or request.on_behalf_of_id == user.pk
        or user.is_administrator
        or profile.endpoint.owner_id == user.pk
        or profile.reviewers.has(user)
        or any(may_decide(user, request, at) for at in range(len(request.policy["steps"])))
    )


def check_end(user: User, grant: Grant) -> None:
    """Raise Forbidden unless this person may end this grant."""
    if not can_end(user, grant):
        raise Forbidden("Only its holder, its reviewers or the endpoint's owner may end a grant.")


def is_reviewer(user: User) -> bool:
    """Whether anything could come to this person for review, by a profile or a policy."""
    groups = list(user.member_of.values_list("slug", flat=True))
    if AccessProfile.objects.filter(reviewers__slug__in=groups).exists():
        return True
    documents = PolicyVersion.objects.filter(policy__current=F("pk"), policy__retired_at=None)
    named = Q(pk__isnull=True)
    # Wherever in a document reviewers are named: in a step, in an escalation, afterwards.
    for key, values in (("groups", groups), ("people", [user.email])):
        for value in values:
            named |= _somewhere(f"$.**.{key}[*] ? (@ == {json.dumps(value)})")
    if Endpoint.objects.filter(owner=user).exists():
        named |= _somewhere("$.**.endpoint_owner ? (@ == true)")
    if user.reports.exists():
        named |= _somewhere("$.**.requester_manager ? (@ == true)")
    return documents.filter(named).exists()


def _somewhere(path: str) -> Q:
    """Policies whose document has something at this path."""
    exists = Func(
        F("document"),
        Value(path),
        template="jsonb_path_exists(%(expressions)s::jsonpath)",
        output_field=BooleanField(),
    )
    return Q(exists)
