import datetime as dt
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from accessrequests.actions import JUSTIFICATION_LENGTH, REASON_LENGTH
from accessrequests.actions.asking import TICKET_LENGTH
from accessrequests.actions.granting import approved_terms
from accessrequests.actions.talking import COMMENT_LENGTH, NOTE_LENGTH
from accessrequests.models import AccessRequest
from accessrequests.policy.document import Ticket
from accessrequests.policy.effective import Effective
from accounts.models import User
from audit import clock
from audit.templatetags.keyturn import and_list, duration
from endpoints.scope import BUDGETS, KNOWN, LIMITS, LISTS, Scope
from endpoints.wording import LABELS, amount, name_words

SENSIBLE = tuple(dt.timedelta(minutes=minutes) for minutes in (15, 30, 60, 120, 240, 480, 1440))
OTHER = "other"
LATER = "later"
MOMENT = "%Y-%m-%dT%H:%M"
MOMENT_ERRORS = {"invalid": "Give a date and a time, such as 2026-11-30 09:00."}


def minutes(value: dt.timedelta) -> int:
    """Whole minutes."""
    return value // dt.timedelta(minutes=1)


def moment_input() -> forms.DateTimeInput:
    """A date and a time in the reader's zone."""
    return forms.DateTimeInput(
        format=MOMENT, attrs={"type": "datetime-local", "class": "form-control input-medium"}
    )


class ScopeForm(forms.Form):
    """A form with a field for each part of a scope that there is something to choose of."""

    beyond = "%(value)s is not in this profile."

    def offer_scope(
        self,
        widest: Scope | None,
        limits: Iterable[str] = (),
        *,
        only: Iterable[str] = KNOWN,
    ) -> None:
        """Offer what `widest` holds, and a field for each of its limits and of `limits`."""
        self.parts: list[str] = []
        if widest is None:
            return
        for key in LISTS:
            if key in only and (names := sorted(getattr(widest, key))):
                self.fields[key] = forms.MultipleChoiceField(
                    label=LABELS[key],
                    required=False,
                    choices=[(name, name_words(key, name)) for name in names],
                    error_messages={"invalid_choice": self.beyond},
                )
                self.parts.append(key)
        for key in LIMITS:
            most = getattr(widest, key)
            if key in only and (most is not None or key in limits):
                self.fields[key] = _limit_field(key, most)
                self.parts.append(key)

    @property
    def names(self) -> list[forms.BoundField]:
        """The lists of names to choose from, the one that opens anything first."""
        return [self[key] for key in self.parts if key in LISTS]

    @property
    def limits(self) -> list[forms.BoundField]:
        """The limits, each a number."""
        return [self[key] for key in self.parts if key in LIMITS]

    @property
    def further_errors(self) -> bool:
        """Whether anything is wrong with what is shown only when it's opened."""
        return any(field.errors for field in [*self.names[1:], *self.limits])

    @property
    def scope_errors(self) -> bool:
        """Whether anything is wrong with what was chosen of the scope."""
        return any(self[key].errors for key in self.parts)

    @property
    def further_label(self) -> str:
        """What is to be opened, in words."""
        said = [field.label.lower() for field in self.names[1:] if field.name != "mcp_hosts"]
        said += [LABELS["mcp_hosts"]] if "mcp_hosts" in self.parts[1:] else []
        said += ["limits"] if self.limits else []
        return and_list(said)[:1].upper() + and_list(said)[1:]

    def named_scope(self) -> dict[str, Any]:
        """What was chosen, as the actions take it; a limit that was left empty isn't named."""
        found: dict[str, Any] = {}
        for key in self.parts:
            value = self.cleaned_data.get(key)
            if value is not None:
                found[key] = str(value) if key == "cost_budget" else value
        return found


def _limit_field(key: str, most: int | Decimal | None) -> forms.Field:
    widget = forms.NumberInput(attrs={"class": "form-control input-short", "inputmode": "decimal"})
    hint = f"At most {amount(key, most)}." if most is not None else ""
    if key == "cost_budget":
        return forms.DecimalField(
            label=LABELS[key],
            required=False,
            help_text=hint,
            widget=widget,
            error_messages={"invalid": "Give an amount, such as 12.50."},
        )
    return forms.IntegerField(
        label=LABELS[key],
        required=False,
        help_text=hint,
        widget=widget,
        error_messages={"invalid": "Give a whole number, such as 1000."},
    )


class RequestForm(ScopeForm):
    """One ask. It reads what was typed; the action decides whether it may be.

    `holds` are the policies of all that is asked for, of which the strictest counts; of `widest`
    may be chosen, and nothing is asked where there is none. `usual` is what is given by default.
    """

    duration = forms.ChoiceField(
        label="For how long",
        widget=forms.RadioSelect,
        error_messages={
            "required": "Choose how long you need it.",
            "invalid_choice": "Choose one of the durations, or “Other” and give minutes.",
        },
    )
    minutes = forms.IntegerField(
        label="Minutes",
        required=False,
        widget=forms.NumberInput(
            attrs={"class": "form-control input-short", "inputmode": "numeric", "min": "1"}
        ),
        error_messages={"invalid": "Give whole minutes, such as 45."},
    )
    begin = forms.ChoiceField(
        label="From when",
        required=False,
        choices=[("", "When it is approved"), (LATER, "Later")],
        error_messages={"invalid_choice": "Choose when it begins."},
    )
    starts_at = forms.DateTimeField(
        label="Date and time", required=False, widget=moment_input(), error_messages=MOMENT_ERRORS
    )
    ticket = forms.CharField(
        label="Ticket",
        widget=forms.TextInput(
            attrs={
                "class": "form-control input-medium",
                "maxlength": TICKET_LENGTH,
                "autocomplete": "off",
                "spellcheck": "false",
            }
        ),
        error_messages={"required": "Name the ticket that this is for."},
    )
    justification = forms.CharField(
        label="What you need it for",
        widget=forms.Textarea(
            attrs={"class": "form-control", "rows": 4, "maxlength": JUSTIFICATION_LENGTH}
        ),
        error_messages={"required": "Say what you need it for: your reviewer decides by this."},
    )

    def __init__(
        self,
        *args: Any,
        holds: Sequence[Effective],
        widest: Scope | None = None,
        usual: Scope | None = None,
        break_glass: bool = False,
        extension: bool = False,
        raises: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if raises:
            del self.fields["duration"], self.fields["minutes"]
        self.longest = min(each.max_duration for each in holds)
        length = min(each.default_duration for each in holds)
        if break_glass:
            allowed = [each.break_glass for each in holds if each.break_glass is not None]
            self.longest = min([self.longest, *(each.max_duration for each in allowed)])
        self.usual = min(length, self.longest)
        lengths = {value for value in SENSIBLE if value <= self.longest}
        lengths |= {self.usual, self.longest}
        choices = [(str(minutes(value)), duration(value)) for value in sorted(lengths)]
        if not raises:
            self.fields["duration"].choices = [*choices, (OTHER, "Other")]  # type: ignore[attr-defined]
            self.fields["minutes"].widget.attrs["max"] = minutes(self.longest)
        self.offer_scope(widest, [key for key in LIMITS if usual and getattr(usual, key)])
        self._offer_start(holds, now_only=break_glass or extension or raises)
        self._offer_ticket([ticket for each in holds for ticket in each.tickets])
        least = max(each.justification_length for each in holds)
        self.fields["justification"].help_text = (
            f"{'Whoever reviews it afterwards judges' if break_glass else 'Your reviewer decides'} "
            "by this, and it stays on record."
            + (f" At least {least} characters." if least > 1 else "")
        )

    def _offer_start(self, holds: Sequence[Effective], *, now_only: bool) -> None:
        latest = [each.latest_start for each in holds if each.latest_start is not None]
        if now_only or len(latest) < len(holds):
            del self.fields["begin"], self.fields["starts_at"]
            return
        self.latest_start = min(latest)
        now = timezone.localtime(clock.now())
        self.fields["starts_at"].widget.attrs |= {
            "min": f"{now:{MOMENT}}",
            "max": f"{now + self.latest_start:{MOMENT}}",
        }
        self.fields["starts_at"].help_text = (
            f"In your time zone, {now:%Z}, within {duration(self.latest_start)} from now. "
            "Approved later than that, it begins at the approval."
        )

    def usual_start(self) -> str:
        """What its widget starts with: tomorrow at nine, or the next full hour."""
        if "starts_at" not in self.fields:
            return ""
        now = timezone.localtime(clock.now())
        nine = (now + dt.timedelta(days=1)).replace(hour=9, minute=0)
        hour = (now + dt.timedelta(hours=1)).replace(minute=0)
        fits = [start for start in (nine, hour) if start <= now + self.latest_start]
        return f"{fits[0]:{MOMENT}}" if fits else ""

    def _offer_ticket(self, tickets: Sequence[Ticket]) -> None:
        if not tickets:
            del self.fields["ticket"]
            return
        self.fields["ticket"].required = any(ticket.required for ticket in tickets)
        patterns = list(dict.fromkeys(ticket.pattern for ticket in tickets if ticket.pattern))
        if patterns:
            shown = format_html_join(" and ", "<code>{}</code>", ((each,) for each in patterns))
            self.fields["ticket"].help_text = format_html("Must match {}", shown)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        chosen = cleaned.get("duration") if "duration" in self.fields else None
        if chosen == OTHER:
            if cleaned.get("minutes") is None:
                if "minutes" not in self.errors:
                    self.add_error(
                        "duration", f"Give the minutes, from 1 to {minutes(self.longest)}."
                    )
            else:
                # Beyond what an interval of PostgreSQL's holds it is out of any limit anyway.
                number = max(-1, min(int(cleaned["minutes"]), 10**7))
                cleaned["length"] = dt.timedelta(minutes=number)
        elif chosen:
            cleaned["length"] = dt.timedelta(minutes=int(chosen))
        if cleaned.get("begin") != LATER:
            # What was typed before the choice was taken back doesn't count.
            cleaned["starts_at"] = None
            self.errors.pop("starts_at", None)
        elif cleaned.get("starts_at") is None and "starts_at" not in self.errors:
            self.add_error("starts_at", "Give the date and time at which it begins.")
        return cleaned

    def ask(self) -> dict[str, Any]:
        """What was typed, as the actions take it; what is missing or wrong is left out."""
        cleaned = self.cleaned_data
        found: dict[str, Any] = {"duration": cleaned.get("length")}
        found["starts_at"] = cleaned.get("starts_at")
        found["ticket"] = cleaned.get("ticket", "")
        found["justification"] = cleaned.get("justification", "")
        if self.parts:
            found["scope"] = self.named_scope()
        return found


class AbsenceForm(forms.Form):
    """Being away: from when until when, and who is told meanwhile."""

    starts_at = forms.DateTimeField(
        label="From",
        required=False,
        help_text="Left empty, from now on.",
        widget=moment_input(),
        error_messages=MOMENT_ERRORS,
    )
    ends_at = forms.DateTimeField(
        label="Until",
        widget=moment_input(),
        error_messages=MOMENT_ERRORS | {"required": "Say until when you are away."},
    )
    delegate = forms.EmailField(
        label="Who is told instead",
        required=False,
        help_text="The email of a colleague. They gain no rights by it: they are told of what "
        "they may decide in their own right, and you are told of the rest.",
        widget=forms.EmailInput(attrs={"class": "form-control", "autocomplete": "off"}),
        error_messages={"invalid": "Give an email address, such as ben@example.com."},
    )
    note = forms.CharField(
        label="Note",
        required=False,
        max_length=200,
        help_text="For your own list.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        zone = f"{timezone.localtime(clock.now()):%Z}"
        self.fields["ends_at"].help_text = f"Both in your time zone, {zone}."


SHORTER = tuple(
    dt.timedelta(minutes=minutes)
    for minutes in (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1440, 2880, 5760)
)


class ReviewForm(ScopeForm):
    """A verdict and its reason; an approval gives what was asked for, or less."""

    beyond = "%(value)s isn’t asked for, or was left out meanwhile."

    verdict = forms.ChoiceField(
        choices=[("approve", "Approve"), ("deny", "Deny")],
        error_messages={
            "required": "Choose to approve or to deny.",
            "invalid_choice": "Choose to approve or to deny.",
        },
    )
    reason = forms.CharField(
        label="Reason",
        required=False,
        widget=forms.Textarea(
            attrs={
                "class": "form-control",
                "rows": 2,
                "maxlength": REASON_LENGTH,
                "data-reason": True,
            }
        ),
    )
    length = forms.ChoiceField(
        label="For",
        required=False,
        widget=forms.Select(attrs={"class": "form-select", "data-less": True}),
        error_messages={"invalid_choice": "Choose one of the durations."},
    )
    starts_at = forms.DateTimeField(
        label="Not before",
        required=False,
        widget=moment_input(),
        error_messages=MOMENT_ERRORS,
    )

    def __init__(self, *args: Any, request: AccessRequest, **kwargs: Any) -> None:
        self.asked, self.longest, self.start = approved_terms(request)
        initial = self.asked.spelled_out() | {
            "length": str(minutes(self.longest)),
            "starts_at": self.start,
        }
        super().__init__(*args, **{"initial": initial} | kwargs)
        shorter = [value for value in SHORTER if value < self.longest]
        self.fields["length"].choices = [  # type: ignore[attr-defined]
            (str(minutes(value)), duration(value)) for value in [self.longest, *reversed(shorter)]
        ]
        self.raises = request.raises_id is not None
        if self.raises:
            del self.fields["length"], self.fields["starts_at"]
        self.offer_scope(self.asked, only=BUDGETS if self.raises else KNOWN)

    def less(self) -> dict[str, Any]:
        """What was chosen that is less than asked for, as `review_request` takes it."""
        if self.cleaned_data.get("verdict") != "approve":
            return {}
        found: dict[str, Any] = {}
        length = self.cleaned_data.get("length")
        if length and length != str(minutes(self.longest)):
            found["duration"] = dt.timedelta(minutes=int(length))
        # A form that shows nothing of the scope, such as a script's, leaves nothing out.
        if "length" in self.data or self.raises:
            chosen, before = self.named_scope(), self.asked.spelled_out()
            if less := {key: part for key, part in chosen.items() if part != before[key]}:
                found["scope"] = less
        start = self.cleaned_data.get("starts_at")
        if start and not self._as_asked(start):
            found["starts_at"] = start
        return found

    def _as_asked(self, start: dt.datetime) -> bool:
        # The field shows minutes; what was asked for may have seconds.
        return self.start is not None and start == self.start.replace(second=0, microsecond=0)


class CommentForm(forms.Form):
    """A comment, or a question to the requester."""

    text = forms.CharField(
        label="Comment",
        required=False,
        widget=forms.Textarea(
            attrs={
                "class": "form-control",
                "rows": 2,
                "maxlength": COMMENT_LENGTH,
                "data-comment": True,
            }
        ),
    )


class HandOverForm(forms.Form):
    """Whom to ask to decide instead, and why."""

    to = forms.ChoiceField(
        label="To",
        required=False,
        widget=forms.Select(attrs={"class": "form-select", "data-hand-over": True}),
        error_messages={"invalid_choice": "Must be somebody else who may decide this request."},
    )
    note = forms.CharField(
        label="Note",
        required=False,
        widget=forms.TextInput(attrs={"class": "form-control", "maxlength": NOTE_LENGTH}),
    )

    def __init__(self, *args: Any, people: Iterable[User], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["to"].choices = [(each.email, str(each)) for each in people]  # type: ignore[attr-defined]


class PolicyForm(forms.Form):
    """The text of a policy, and why it changes. What it says is for the action to judge."""

    text = forms.CharField(
        label="Policy",
        help_text="YAML. docs/policies.md says what each key means.",
        max_length=100_000,
        strip=False,
        widget=forms.Textarea(
            attrs={
                "class": "form-control mono",
                "rows": 26,
                "spellcheck": "false",
                "autocapitalize": "none",
            }
        ),
        error_messages={"required": "Write the policy."},
    )
    note = forms.CharField(
        label="Why",
        required=False,
        max_length=300,
        help_text="A second administrator decides by this, and whoever reads the history asks.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )
