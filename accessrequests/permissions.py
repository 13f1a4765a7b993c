"""Who may. What the state of things allows is another question: see actions."""

from accessrequests.models import AccessRequest, Grant
from accounts.models import Group, User
from broker.errors import Forbidden, SelfReview


def check_review(user: User, request: AccessRequest) -> None:
    """Raise unless this person may review this request: SelfReview, else Forbidden."""
    if request.requester_id == user.pk:
        raise SelfReview
    if not request.profile.reviewers.has(user):
        raise Forbidden(f"Only {request.profile.reviewers} may review this request.")


def can_review(user: User, request: AccessRequest) -> bool:
    """Whether this person may review this request."""
    try:
        check_review(user, request)
    except Forbidden:
        return False
    return True


def check_cancel(user: User, request: AccessRequest) -> None:
    """Raise Forbidden unless this person may take the request back."""
    if request.requester_id != user.pk:
        raise Forbidden("Only the requester may cancel a request.")


def check_hold(user: User, grant: Grant) -> None:
    """Raise Forbidden unless this person may check out under this grant."""
    if grant.holder_id != user.pk:
        raise Forbidden("Only the person whom it was granted to may check out.")


def can_end(user: User, grant: Grant) -> bool:
    """Whether this person may end this grant: its holder, its profile's reviewers, the
    endpoint's owner, an administrator."""
    profile = grant.request.profile
    return user.is_active and (
        grant.holder_id == user.pk
        or user.is_administrator
        or profile.endpoint.owner_id == user.pk
        or profile.reviewers.has(user)
    )


def check_end(user: User, grant: Grant) -> None:
    """Raise Forbidden unless this person may end this grant."""
    if not can_end(user, grant):
        raise Forbidden("Only its holder, its reviewers or the endpoint's owner may end a grant.")


def eligible_reviewers(group: Group, requester: User) -> list[User]:
    """Those who could decide a request of this requester's."""
    return list(group.members.filter(is_active=True).exclude(pk=requester.pk))
