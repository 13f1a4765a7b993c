"""What can go wrong, as RFC 9457 sees it: each class is one problem type with its HTTP status.

A class's docstring is its default message and the text of its page under /problems/.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar


class KeyturnError(Exception):
    """Keyturn could not do this."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"

    def __init__(self, detail: str = "", **extra: object) -> None:
        self.detail = detail or (type(self).__doc__ or "").split("\n\n")[0]
        self.extra = extra
        super().__init__(self.detail)


class InternalError(KeyturnError):
    """Keyturn met something that nobody foresaw."""

    code = "internal-error"
    title = "Internal error"


class BadRequest(KeyturnError):
    """This call can't be read: its `Host` header, its address or its body isn't as HTTP has it."""

    status = 400
    code = "bad-request"
    title = "Bad request"


class InvalidInput(KeyturnError):
    """Something in the input is not acceptable; each field at fault is named with what would be.

    `errors` maps a field's name to its message, in words that say what would be right.
    """

    status = 400
    code = "invalid-input"
    title = "Invalid input"

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(" ".join(f"{field}: {message}" for field, message in errors.items()))
        self.errors = dict(errors)
        self.extra = {
            "errors": [{"field": field, "message": message} for field, message in errors.items()]
        }


class TokenInUrl(KeyturnError):
    """A token of Keyturn's was in the URL of this call, so it's in logs by now. Revoke it.

    Tokens go in the header `Authorization`. Who answers for it has been told.
    """

    status = 400
    code = "token-in-url"
    title = "Token in a URL"


class NotSignedIn(KeyturnError):
    """This needs a signed-in person or an API token."""

    status = 401
    code = "not-signed-in"
    title = "Not signed in"


class SignInAgain(NotSignedIn):
    """This session is over: whoever let you in no longer stands for it. Sign in again."""

    code = "sign-in-again"
    title = "Sign in again"


class Forbidden(KeyturnError):
    """You may see this, but not do that with it."""

    status = 403
    code = "forbidden"
    title = "Not allowed"


class SelfReview(Forbidden):
    """Nobody reviews their own access request. It waits for another reviewer."""

    code = "self-review"
    title = "Own request"


class SecondPerson(Forbidden):
    """Nobody decides a change that they proposed. It waits for another administrator."""

    code = "second-person"
    title = "A second person is needed"


class NeedsPerson(Forbidden):
    """This takes a person: a service account or a workload approves nothing and breaks no glass."""

    code = "needs-person"
    title = "A person is needed"


class TokenScope(Forbidden):
    """This API token isn't for this. What it is for was said when it was made."""

    code = "token-scope"
    title = "Beyond the token's scope"


class StepUpNeeded(Forbidden):
    """This takes a second factor that was proved more recently."""

    code = "step-up-needed"
    title = "Second factor needed"

    def __init__(self, detail: str = "", *, purposes: Sequence[str] = ()) -> None:
        self.purposes = list(purposes)
        super().__init__(detail, purposes=self.purposes)


class NotFound(KeyturnError):
    """There is nothing here, or nothing that you may see."""

    status = 404
    code = "not-found"
    title = "Not found"


class Conflict(KeyturnError):
    """Somebody or something else was first."""

    status = 409
    code = "conflict"
    title = "Conflict"


class StaleChange(Conflict):
    """What this change was made from has changed since; it has to be proposed anew."""

    code = "stale-change"
    title = "Stale change"


class PreconditionFailed(KeyturnError):
    """It isn't what you looked at any more, so nothing was done. Read it again, then decide."""

    status = 412
    code = "precondition-failed"
    title = "Changed meanwhile"


class AlreadyDecided(Conflict):
    """This access request was decided already; nothing was changed."""

    code = "already-decided"
    title = "Already decided"


class NotLive(Conflict):
    """This grant isn't live, so nothing can be checked out under it."""

    code = "grant-not-live"
    title = "Grant not live"


class AuthorityLost(Conflict):
    """What this grant rests on no longer holds, so nothing can be checked out under it."""

    code = "authority-lost"
    title = "Authority lost"


class CheckoutInProgress(Conflict):
    """Another check-out under this grant is being made at this moment; try again in a second."""

    code = "checkout-in-progress"
    title = "Check-out in progress"


class IdempotencyInProgress(Conflict):
    """The same call with this Idempotency-Key is being carried out; try again in a second."""

    code = "idempotency-in-progress"
    title = "Being carried out"
    retry_after = 1


class IdempotencyAnswerNotKept(Conflict):
    """This call was carried out, once, and its answer can't be repeated: it had a secret in it, or
    you don't see any more what it was about.

    `location` is what came of it, where there is something to read. If the secret is lost, make
    the call anew under another Idempotency-Key: a check-out revokes the credential before it.
    """

    code = "idempotency-answer-not-kept"
    title = "Answer not kept"


class IdempotencyKeyReused(KeyturnError):
    """This Idempotency-Key was used for another call: another address or another body.

    A key is good for one call and its repetitions. By a token that is for other endpoints, the
    same call is another one too.
    """

    status = 422
    code = "idempotency-key-reused"
    title = "Key used already"


class WrapTaken(KeyturnError):
    """What this token wrapped is gone: it was read before, or its time is over.

    If you haven't read it, somebody else may have. A new check-out stops that credential.
    """

    status = 410
    code = "wrap-taken"
    title = "Wrapped secret taken"


class TooLarge(KeyturnError):
    """The body of this call is larger than anything that Keyturn needs."""

    status = 413
    code = "too-large"
    title = "Too large"


class TooManyTries(KeyturnError):
    """Too many tries that failed. Wait, then try again."""

    status = 429
    code = "too-many-tries"
    title = "Too many tries"

    def __init__(self, detail: str = "", *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class TooManyRequests(KeyturnError):
    """These are more calls than you may make in a minute.

    RateLimit-Policy says how many those are, Retry-After when to go on.
    """

    status = 429
    code = "too-many-requests"
    title = "Too many requests"

    def __init__(self, detail: str = "", *, retry_after: int = 60) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(KeyturnError):
    """A server that Keyturn needs for this can't be reached at the moment; nothing was done."""

    status = 503
    code = "unavailable"
    title = "Unavailable"

    def __init__(self, detail: str = "", *, retry_after: int = 5) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
