import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import push_url, retarget

from accessrequests import actions, desk
from accessrequests.desk import Filters
from accessrequests.dossier import left_out
from accessrequests.forms import CommentForm, HandOverForm, ReviewForm
from accessrequests.models import AccessRequest, Comment, Review
from accessrequests.policy.document import Reviewers
from accessrequests.routing import in_words
from accessrequests.states import GrantState, RequestState
from accessrequests.views.approvals import filters_of, form_kept, queue
from accessrequests.views.detail import detail, is_htmx, page, visible
from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from accounts.standing import check_standing
from audit.refusals import record_refusal
from audit.templatetags.keyturn import and_list
from broker.errors import Conflict, InvalidInput
from endpoints.wording import budgets_in_words


@never_cache
@require_safe
def request_page(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Where one request is."""
    user = person(request)
    row = fetch(visible(user), pk)
    context = page(user, row)
    if context["decides"]:
        context |= form_kept(request, row)
    return render(request, "accessrequests/request.html", context)


def _from(request: HttpRequest) -> Filters | None:
    """The filters of the queue that a form stands beside; None on the request's own page."""
    if request.POST.get("from") != "approvals":
        return None
    return filters_of(request.POST.get("query", ""))


@never_cache
@require_POST
def request_review(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Approve, approve less, or deny; from the queue the next request is then beside it."""
    user = person(request)
    row = fetch(visible(user), pk)
    check_standing(request)
    filters = _from(request)
    order: list[str] = []
    if filters is not None and is_htmx(request):
        order = [str(item.request.pk) for item in desk.page(user, filters).items]
    form = ReviewForm(request.POST, request=row)
    status, lost = 200, ""
    try:
        review = _review(request, user, row, form)
    except InvalidInput as error:
        _add_errors(form, error)
        return _again(request, user, row, filters, form=form)
    except Conflict as error:
        # A decision that lost a race says who decided, and changes nothing.
        record_refusal(error, by=user, method=request.method, path=request.path)
        status, lost = error.status, error.detail
        messages.warning(request, f"{row.requester}’s request: {lost}")
    else:
        messages.success(request, decided_words(review))
    if filters is not None and is_htmx(request):
        at = order.index(str(pk)) if str(pk) in order else 0
        context = queue(user, filters, None, order[at + 1 :] + order[:at][::-1])
        context["decided"] = True
        response = render(request, "accessrequests/_queue.html", context, status=status)
        shown = context["shown"]
        address = reverse("approvals") + filters.query(request=shown.pk if shown else "")
        return push_url(retarget(response, "#queue"), address)
    if lost:
        context = page(user, fetch(visible(user), pk))
        return render(request, "accessrequests/request.html", context, status=status)
    if filters is not None:
        return redirect(reverse("approvals") + filters.query())
    return redirect("request", pk=pk)


def _review(request: HttpRequest, user: User, row: AccessRequest, form: ReviewForm) -> Review:
    form.is_valid()
    verdict = form.cleaned_data.get("verdict")
    if verdict is None:
        raise InvalidInput({"verdict": "Choose to approve or to deny."})
    # What is wrong with how much to approve doesn't keep anybody from denying.
    if form.errors and verdict == Review.Verdict.APPROVE:
        raise InvalidInput({})
    return actions.review_request(
        by=user,
        request_id=row.pk,
        verdict=Review.Verdict(verdict),
        reason=form.cleaned_data.get("reason", ""),
        proofs=stepup.proofs(request),
        **form.less(),
    )


def _add_errors(form: Any, error: InvalidInput) -> None:
    names = {"duration": "length"}
    for name, message in error.errors.items():
        name = names.get(name, name).removeprefix("scope.")
        if not form.has_error(name):
            form.add_error(name if name in form.fields else None, message)


def decided_words(review: Review) -> str:
    """What a review came to, as its reviewer reads it."""
    row = review.request
    who, what = row.requester, row.profile.endpoint
    if review.verdict == Review.Verdict.DENY:
        ended = " Their access has ended." if row.break_glass else ""
        return f"Denied. {who} reads your reason.{ended}"
    if row.break_glass:
        return f"Reviewed. {who}’s access to {what} was in order."
    less = left_out(review)
    said = f"Approved less: {', '.join(less)}." if less else "Approved."
    if row.state == RequestState.PENDING:
        step = row.policy["steps"][row.step]
        named = in_words(Reviewers.model_validate(step["reviewers"]), row.profile)
        return f"{said} It still waits for “{step['name']}”, by {named}."
    if row.raises is not None:
        return f"{said} {who} has {and_list(budgets_in_words(row.raises.allowed))} in all now."
    grant = row.grant
    ends = timezone.localtime(grant.ends_at)
    if grant.state == GrantState.SCHEDULED:
        begins = timezone.localtime(grant.starts_at)
        return (
            f"{said} {who} will have access to {what} from {begins.day} {begins:%b, %H:%M} "
            f"to {ends.day} {ends:%b, %H:%M}."
        )
    return f"{said} {who} has access to {what} until {ends:%H:%M}."


def _again(
    request: HttpRequest, user: User, row: AccessRequest, filters: Filters | None, **forms: Any
) -> HttpResponse:
    """The same page again with what was missing, and nothing written."""
    if filters is not None and is_htmx(request):
        context = detail(user, row, filters=filters, **forms) | {"shown": row}
        answer = render(request, "accessrequests/_detail.html", context, status=400)
        return retarget(answer, "#detail")
    context = page(user, row, **forms)
    return render(request, "accessrequests/request.html", context, status=400)


def _back(
    request: HttpRequest, user: User, row: AccessRequest, filters: Filters | None
) -> HttpResponse:
    """To where it was said: the detail alone, the queue, or the request's own page."""
    if filters is None:
        return redirect("request", pk=row.pk)
    if is_htmx(request):
        context = detail(user, row, filters=filters) | {"shown": row, "said": True}
        return render(request, "accessrequests/_detail.html", context)
    return redirect(reverse("approvals") + filters.query(request=row.pk))


@never_cache
@require_POST
def request_comment(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Say something on a request, or ask its requester."""
    user = person(request)
    row = fetch(visible(user), pk)
    filters = _from(request)
    form = CommentForm(request.POST)
    form.is_valid()
    question = request.POST.get("kind") == Comment.Kind.QUESTION
    try:
        actions.comment(
            by=user,
            request_id=pk,
            text=request.POST.get("text", ""),
            kind=Comment.Kind.QUESTION if question else Comment.Kind.COMMENT,
        )
    except InvalidInput as error:
        _add_errors(form, error)
        return _again(request, user, row, filters, comment_form=form)
    messages.success(request, f"Asked. {row.requester} is told." if question else "Said.")
    return _back(request, user, row, filters)


@never_cache
@require_POST
def request_hand_over(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask another reviewer to decide."""
    user = person(request)
    row = fetch(visible(user), pk)
    filters = _from(request)
    try:
        handed = actions.hand_over(
            by=user,
            request_id=pk,
            to=request.POST.get("to", ""),
            note=request.POST.get("note", ""),
        )
    except InvalidInput as error:
        others = detail(user, row)["others"]
        form = HandOverForm(request.POST, people=others)
        form.is_valid()
        _add_errors(form, error)
        return _again(request, user, row, filters, hand_over_form=form)
    messages.success(request, f"Handed to {handed.to}, who is told. You may still decide it.")
    return _back(request, user, row, filters)
