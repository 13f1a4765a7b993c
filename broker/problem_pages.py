"""A public page for each problem type that the API names: what it means, what to do about it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from broker.errors import KeyturnError

# What to do about each code. A class in broker.errors without an entry here has no page, and
# tests/house/test_docs.py says so.
WHAT_TO_DO = {
    "error": "Look at the log of the web process under the `X-Request-Id` of the answer. If you "
    "don't run Keyturn yourself, give that number to the people who do.",
    "internal-error": "Give the `X-Request-Id` of the answer, which is its `trace` too, to the "
    "people who run Keyturn. Read what you wanted to change before you send the same again.",
    "bad-request": "Call an address that `/api/v1/docs/` shows, by the host name that it shows. "
    "Nothing was done.",
    "invalid-input": "Read `errors`: each entry names a `field` and a `message` that says what "
    "would be accepted. Correct those fields and send the request again. Nothing was written.",
    "not-signed-in": "Send an API token as `Authorization: Bearer kt_pat_…`, or sign in to the "
    "portal. If you did send a token, it has expired, was revoked, was copied incompletely, or "
    "its owner was deactivated: make a new one in the portal under Settings, API tokens.",
    "token-in-url": "Revoke the token in the portal, make another one, and send that in the header "
    "`Authorization: Bearer …`. What was in a URL is in logs and histories on the way. Nothing was "
    "done, and whoever answers for the token has been told.",
    "token-scope": "Read `verb`, where there is one: what the token lacks. Make one that is for "
    "that, and for this endpoint, in the portal under Settings, API tokens; `GET /api/v1/me/` says "
    "what the one that you use is for.",
    "sign-in-again": "Sign in again in the portal. Your company's provider was asked whether you "
    "still have your account there, and said no, or no longer knows the session.",
    "forbidden": "Read `detail`: it names who may do this. Ask one of them. The try is on record.",
    "self-review": "Wait for another member of the reviewing group, or cancel the request.",
    "second-person": "Let another administrator decide the change: `/changes/` names who can. If "
    "there is nobody else, whoever runs Keyturn can do it by command.",
    "stale-change": "Read `difference`: what the change would do now. If that is still wanted, "
    "propose it anew; the old one makes way for it.",
    "precondition-failed": "Read it again, look at what has changed, and send the call with the "
    "`ETag` of that answer as `If-Match`. Without `If-Match` it goes through whatever changed.",
    "needs-person": "Let a reviewer, or for a policy an administrator, do it: in the portal, or by "
    "an API token of their own with a second factor. A program can wait by reading the request "
    "until its `state` is no longer `pending`; policies from a file are taken by "
    "`manage.py policy apply`.",
    "step-up-needed": "Prove your second factor in the portal for what `purposes` names, an action "
    "and the id of what it's done to: open `/step-up/?for=…`, with a `for` for each. Then send the "
    "same again in that session within five minutes; nothing was done yet. A proof for one thing "
    "is none for another. By an API token of your own, send a code of your authenticator or a "
    "recovery code in the header `Keyturn-Second-Factor`: it is good for that call alone.",
    "not-found": "Check the id. Keyturn answers the same for what doesn't exist and for what you "
    "may not see, so also check whose token you use. The try is on record.",
    "conflict": "Read the object again: it has changed since you last did. Then decide whether "
    "what you wanted still makes sense.",
    "already-decided": "Read `decided_by`, `decided_at` and `state` in the answer. If the request "
    "was denied, cancelled or has expired, file a new one.",
    "grant-not-live": "Read the grant: `starts_at`, `ends_at`, `ended_at` and `end_reason` say "
    "when it held and why it ended. If you still need access, file a new request.",
    "authority-lost": "Read `detail`: it names what has changed since the approval. File a new "
    "request, which is judged by what holds now.",
    "idempotency-in-progress": "Wait for as many seconds as the `Retry-After` header says, then "
    "send the same again under the same key: you get the answer to the first.",
    "idempotency-answer-not-kept": "Look whether what you asked for is there: `location` names it, "
    "where it has an address. If you never got the secret, make the call anew under another key. "
    "A check-out revokes the credential before it; a token that nobody got, revoke.",
    "idempotency-key-reused": "Make a new key for each call, such as a random UUID, and use it "
    "again only to repeat that call as it was: same address, same body.",
    "wrap-taken": "If neither you nor anything of yours has read it, somebody else has: check out "
    "again, which stops that credential.",
    "checkout-in-progress": "Wait a second and try again. If another program shares this grant, "
    "let one of them check out: each check-out revokes the one before.",
    "too-large": "Send less: the answer says how many bytes a body may have, where that is known.",
    "too-many-tries": "Wait for as many seconds as the `Retry-After` header says. Sessions that "
    "are open already go on working.",
    "too-many-requests": "Wait for as many seconds as the `Retry-After` header says. If you poll, "
    "poll less often, or have the server wait for you; `RateLimit` says what you have left.",
    "unavailable": "Wait for as many seconds as the `Retry-After` header says, then send the same "
    "request again. Nothing was done, so nothing is done twice.",
}


@dataclass(frozen=True)
class ProblemType:
    """One problem type, in words."""

    code: str
    status: int
    title: str
    about: str
    what_to_do: str


# What Django REST framework refuses before any code of Keyturn's is asked.
_FRAMEWORK = (
    ProblemType(
        "parse-error",
        400,
        "Parse error",
        "The body isn't JSON.",
        "Read `detail` for the position of the error. Send UTF-8 JSON.",
    ),
    ProblemType(
        "method-not-allowed",
        405,
        "Method not allowed",
        "This address doesn't take this method.",
        "Use one of the methods in the `Allow` header. Most changes are POSTs to addresses that "
        "name them, such as `/cancel/`.",
    ),
    ProblemType(
        "not-acceptable",
        406,
        "Not acceptable",
        "The API answers in JSON, and the `Accept` header excludes it.",
        "Send `Accept: application/json`, or no such header.",
    ),
    ProblemType(
        "unsupported-media-type",
        415,
        "Unsupported media type",
        "The API reads JSON, and the body was sent as something else.",
        "Send `Content-Type: application/json`.",
    ),
)


def _tree(error: type[KeyturnError]) -> Iterator[type[KeyturnError]]:
    yield error
    for child in error.__subclasses__():
        # One outside of broker.errors only carries what the framework says.
        if child.__module__ == KeyturnError.__module__:
            yield from _tree(child)


def _described(error: type[KeyturnError]) -> ProblemType:
    # Its first paragraph is the message; what follows is for those who raise it.
    about = (error.__doc__ or "").split("\n\n")[0]
    return ProblemType(
        code=error.code,
        status=error.status,
        title=error.title,
        about=" ".join(about.split()),
        what_to_do=WHAT_TO_DO[error.code],
    )


def problem_types() -> dict[str, ProblemType]:
    """Every problem type by its code, in the order of their statuses."""
    found = [*map(_described, _tree(KeyturnError)), *_FRAMEWORK]
    return {item.code: item for item in sorted(found, key=lambda item: (item.status, item.code))}


def _marked(text: str) -> SafeString:
    """`text` with what stands between backticks as code."""
    return format_html_join(
        "",
        "{}",
        (
            (format_html("<code>{}</code>", part) if i % 2 else part,)
            for i, part in enumerate(re.split("`([^`]+)`", text))
        ),
    )


def _render(request: HttpRequest, page: str, context: dict[str, object]) -> HttpResponse:
    # The portal's frame has nothing to show to a stranger but links that they can't follow.
    frame = "base.html" if request.user.is_authenticated else "problems/public.html"
    return render(request, f"problems/{page}.html", {"frame": frame, **context})


@login_not_required
@require_safe
def problems(request: HttpRequest) -> HttpResponse:
    """All problem types."""
    rows = [(item, _marked(item.about)) for item in problem_types().values()]
    return _render(request, "index", {"rows": rows})


@login_not_required
@require_safe
def problem(request: HttpRequest, code: str) -> HttpResponse:
    """One problem type. Its address is the `type` of the API's answers."""
    found = problem_types().get(code)
    if found is None:
        raise Http404
    return _render(
        request,
        "problem",
        {
            "problem": found,
            "about": _marked(found.about),
            "what_to_do": _marked(found.what_to_do),
        },
    )
