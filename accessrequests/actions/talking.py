"""Talking about a request: comments, questions, and handing it to another reviewer."""

import uuid

from django.db import transaction

from accessrequests import notices
from accessrequests.actions.pending import check_pending
from accessrequests.models import AccessRequest, Comment, HandOver
from accessrequests.permissions import check_comment, check_review
from accessrequests.routing import may_decide
from accounts.door import fetch
from accounts.models import User
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput

COMMENT_LENGTH = 2000
NOTE_LENGTH = 300
MOST_COMMENTS = 200


@transaction.atomic
def comment(
    *,
    by: User,
    request_id: uuid.UUID | str,
    text: str,
    kind: Comment.Kind = Comment.Kind.COMMENT,
) -> Comment:
    """Say something on a request, or ask its requester; the other side is told.

    Raises NotFound, Forbidden for whoever has no part in it, and InvalidInput.
    """
    request = fetch(AccessRequest.objects.visible_to(by), request_id, lock=True)
    check_comment(by, request)
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise InvalidInput({"text": "Write what you want to say."})
    if len(text) > COMMENT_LENGTH or "\x00" in text:
        raise InvalidInput({"text": f"Must be at most {COMMENT_LENGTH} plain characters."})
    if kind == Comment.Kind.QUESTION and request.is_own(by):
        raise InvalidInput({"kind": "A question is for the requester; write a comment."})
    if request.comments.count() >= MOST_COMMENTS:
        raise InvalidInput({"text": f"There are {MOST_COMMENTS} comments already: talk it over."})
    row = Comment.objects.create(request=request, author=by, kind=kind, text=text)
    record(
        Event.REQUEST_QUESTIONED if kind == Comment.Kind.QUESTION else Event.REQUEST_COMMENTED,
        by=by,
        about=request,
        related=(request.profile.endpoint, request.requester),
        text=text,
    )
    notices.commented(request, row)
    return row


@transaction.atomic
def hand_over(*, by: User, request_id: uuid.UUID | str, to: str, note: str = "") -> HandOver:
    """Ask another reviewer, by e-mail address, to decide. Who may decide stays as it is.

    Raises NotFound, Forbidden, AlreadyDecided, and InvalidInput for whoever may not decide it.
    """
    request = fetch(AccessRequest.objects.visible_to(by), request_id, lock=True)
    check_review(by, request)
    if not request.break_glass or request.reviewed_at is not None:
        check_pending(request)
    note = note.strip()
    if len(note) > NOTE_LENGTH or "\x00" in note:
        raise InvalidInput({"note": f"Must be at most {NOTE_LENGTH} plain characters."})
    email = User.objects.normalize_email(to)
    other = None
    if email.isprintable():  # PostgreSQL refuses to look for what it can't hold
        other = User.objects.active().filter(email=email).first()
    if other is not None and other.pk == by.pk:
        raise InvalidInput({"to": "That is you."})
    if (
        other is None
        or request.is_own(other)
        or not may_decide(other, request, request.step)
        or request.reviews.filter(reviewer=other).exists()
    ):
        raise InvalidInput({"to": "Must be somebody else who may decide this request."})
    row = HandOver.objects.create(request=request, by=by, to=other, note=note)
    record(
        Event.REQUEST_HANDED_OVER,
        by=by,
        about=request,
        related=(request.profile.endpoint, request.requester, other),
        to=other.email,
        note=note,
    )
    notices.handed_over(request, row)
    return row
