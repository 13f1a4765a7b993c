"""Step-up: proving a second factor again, for one action on one thing (NIST SP 800-63B-4, §5.2).

A proof opens what it was given for and nothing else: whoever steals a session in which somebody
has just proved themself to end their own grant can't approve a request by it.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import urlencode

from django.contrib.auth import SESSION_KEY
from django.http import HttpRequest, QueryDict
from django.urls import reverse

from accounts.models import ApiToken, User
from audit import clock
from audit.templatetags.keyturn import duration
from broker.errors import InvalidInput, NotFound, StepUpNeeded

FRESH = dt.timedelta(minutes=5)  # how old a proof may be, unless policy says less
KEPT = 60  # proofs in a session, the newest
PROOFS = "factor.proofs"  # in the session: when each purpose was proved
HEADER = "Keyturn-Second-Factor"  # of a call by API token: a code
POSTED = "factor.posted"  # in the session: the form whose sending asked for a proof


class Action(StrEnum):
    """What takes a second factor proved just now, for exactly that."""

    ASK = "ask"  # for a profile whose policy wants it; break-glass too
    REVIEW = "review"
    CHECK_OUT = "check-out"
    STOP = "stop"  # an endpoint or everything, or end all that is live there
    LIFT = "lift"
    ROTATE = "rotate"
    POLICY = "policy"
    ENDPOINT = "endpoint"
    PEOPLE = "people"
    CHANGE = "change"
    TOKEN = "token"  # noqa: S105 -- the word, not one
    FACTOR = "factor"
    ISSUER = "issuer"  # who may sign for workloads, and which act as whom
    WEBHOOK = "webhook"  # where what happens is told
    AGENT = "agent"  # let one act on one's behalf


@dataclass(frozen=True)
class Purpose:
    """What a proof is for: an action, and the id of what it's done to; none where there is one
    only, such as everything."""

    action: Action
    about: str = ""

    def __str__(self) -> str:
        return f"{self.action}:{self.about}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The purpose that a link names. Raises InvalidInput."""
        action, _, about = text.partition(":")
        try:
            return cls(Action(action), about[:64])
        except ValueError:
            raise InvalidInput({"for": "Is no action that takes a second factor."}) from None


@dataclass(frozen=True)
class Proofs:
    """When a person proved their second factor, for what: in a session by purpose, or `in_call`,
    by the call of a token that does this and nothing else."""

    times: Mapping[str, dt.datetime] = field(default_factory=dict)
    in_call: dt.datetime | None = None
    by_token: bool = False

    def at(self, purpose: Purpose) -> dt.datetime | None:
        """When they last did for this purpose, by the database's clock."""
        return self.times.get(str(purpose), self.in_call)

    def fresh(self, purpose: Purpose, age: dt.timedelta = FRESH) -> bool:
        """Whether they did for this purpose within `age`."""
        at = self.at(purpose)
        return at is not None and clock.now() - at <= age

    def check(self, *purposes: Purpose, age: dt.timedelta = FRESH) -> None:
        """Raise StepUpNeeded, naming those that weren't proved within `age`."""
        missing = [purpose for purpose in purposes if not self.fresh(purpose, age)]
        if missing:
            raise needed_in_call(missing) if self.by_token else needed(missing, age)


NONE = Proofs()


def needed(purposes: Iterable[Purpose], age: dt.timedelta = FRESH) -> StepUpNeeded:
    """That these must be proved, in words and as data."""
    return StepUpNeeded(
        f"This takes a second factor proved within the last {duration(age)}, and for this alone.",
        purposes=[str(purpose) for purpose in purposes],
    )


def needed_in_call(purposes: Iterable[Purpose] = ()) -> StepUpNeeded:
    """The same for a call by a person's own API token, which has no session to prove it in."""
    return StepUpNeeded(
        f"By an API token this takes a second factor in the same call: send a code as {HEADER}.",
        purposes=[str(purpose) for purpose in purposes],
    )


def together(errors: Iterable[StepUpNeeded]) -> StepUpNeeded:
    """One that asks for all that these do."""
    errors = list(errors)
    purposes = [purpose for error in errors for purpose in error.purposes]
    return StepUpNeeded(errors[0].detail, purposes=purposes)


def shortest(age: dt.timedelta | None) -> dt.timedelta:
    """How old a proof may be where policy asks for this age, or for none: never older than
    FRESH."""
    return FRESH if age is None else min(age, FRESH)


def link(back: str, purposes: Iterable[Purpose | str]) -> str:
    """The page where these are proved, on the way to `back`."""
    asked = {"next": back, "for": [str(purpose) for purpose in purposes][:KEPT]}
    return f"{reverse('step-up')}?{urlencode(asked, doseq=True)}"


def proofs(request: HttpRequest) -> Proofs:
    """What the person of this session has proved; by an API token, what came in the same call,
    even where a session's cookie comes along."""
    token = getattr(request, "auth", None)
    if isinstance(token, ApiToken):
        return Proofs(in_call=token.proved_at, by_token=token.is_persons)
    session = getattr(request, "session", None)
    if session is None or session.get(SESSION_KEY) != str(request.user.pk):
        return NONE
    kept = session.get(PROOFS, {})
    return Proofs({name: dt.datetime.fromisoformat(at) for name, at in kept.items()})


def keep(request: HttpRequest, purposes: Iterable[Purpose], at: dt.datetime) -> None:
    """Note in the session that these were proved, under another key of it."""
    kept = request.session.get(PROOFS, {}) | dict.fromkeys(map(str, purposes), at.isoformat())
    newest = sorted(kept.items(), key=lambda item: item[1])[-KEPT:]
    request.session.cycle_key()
    request.session[PROOFS] = dict(newest)


def forget(request: HttpRequest) -> None:
    """Let nothing count that was proved before."""
    request.session.pop(PROOFS, None)


def keep_posted(request: HttpRequest) -> None:
    """Note in the session what was typed into the form that asked for a proof, so that its page
    has it again afterwards. Nothing of forms that take secrets: sessions are in the database."""
    if request.method != "POST" or hasattr(request, "sensitive_post_parameters"):
        return
    typed = {name: said for name, said in request.POST.lists() if name != "csrfmiddlewaretoken"}
    request.session[POSTED] = {"to": request.path, "typed": typed}


def posted(request: HttpRequest, to: str) -> QueryDict | None:
    """What was typed into the form that is sent to this address, if a proof was asked for there;
    once."""
    if request.method != "GET" or request.session.get(POSTED, {}).get("to") != to:
        return None
    typed = QueryDict(mutable=True)
    for name, said in request.session.pop(POSTED)["typed"].items():
        typed.setlist(name, said)
    return typed


# Apps above this one say in words what a purpose is, to whoever is to prove it.
Words = Callable[[User, str], str]
_words: dict[Action, Words] = {}


def in_words_by(action: Action, words: Words) -> None:
    """Register who knows the things that this action is about. `words` takes the reader and the
    id, and says what is to be proved: "approve or deny Ana's request for …". Raises NotFound."""
    _words[action] = words


# What waits beside a thing, so that one code can be good for all of it.
Others = Callable[[User, int], list[Purpose]]
_others: dict[Action, Others] = {}


def with_others_by(action: Action, others: Others) -> None:
    """Register who knows what else waits for this action. `others` takes the reader and how many
    to name at most."""
    _others[action] = others


def others(reader: User, purposes: Iterable[Purpose]) -> list[Purpose]:
    """What else waits for the reader and takes the same proof as these; nothing unless all of
    them are of one action."""
    wanted = set(purposes)
    actions = {purpose.action for purpose in wanted}
    if len(actions) != 1 or not actions <= _others.keys():
        return []
    found = _others[actions.pop()](reader, KEPT)
    return [purpose for purpose in found if purpose not in wanted][: KEPT - len(wanted)]


def in_words(reader: User, purpose: Purpose) -> str:
    """What this purpose is, to be read by whoever is to prove it. Raises NotFound."""
    if purpose.action not in _words:
        raise NotFound
    return _words[purpose.action](reader, purpose.about)
