import datetime as dt
from typing import Any

from django import forms

from accessrequests.actions import JUSTIFICATION_LENGTH, REASON_LENGTH
from audit.templatetags.keyturn import duration
from endpoints.models import AccessProfile

SENSIBLE = tuple(dt.timedelta(minutes=minutes) for minutes in (15, 30, 60, 120, 240, 480, 1440))
OTHER = "other"


def minutes(value: dt.timedelta) -> int:
    """Whole minutes."""
    return value // dt.timedelta(minutes=1)


class RequestForm(forms.Form):
    """One ask on one profile. It reads what was typed; the action decides whether it may be."""

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
    models = forms.MultipleChoiceField(
        label="Models",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        error_messages={"invalid_choice": "%(value)s is not in this profile."},
    )
    justification = forms.CharField(
        label="What you need it for",
        help_text="Your reviewer decides by this, and it stays on record.",
        widget=forms.Textarea(
            attrs={"class": "form-control", "rows": 4, "maxlength": JUSTIFICATION_LENGTH}
        ),
        error_messages={"required": "Say what you need it for: your reviewer decides by this."},
    )

    def __init__(self, *args: Any, profile: AccessProfile, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.profile = profile
        longest = profile.max_duration
        lengths = {value for value in SENSIBLE if value <= longest}
        lengths |= {profile.default_duration, longest}
        choices = [(str(minutes(value)), duration(value)) for value in sorted(lengths)]
        self.fields["duration"].choices = [*choices, (OTHER, "Other")]  # type: ignore[attr-defined]
        self.fields["minutes"].widget.attrs["max"] = minutes(longest)
        self.fields["models"].choices = [  # type: ignore[attr-defined]
            (name, name) for name in sorted(profile.ceiling.models)
        ]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        chosen = cleaned.get("duration")
        if chosen == OTHER:
            if cleaned.get("minutes") is None:
                if "minutes" not in self.errors:
                    self.add_error(
                        "duration",
                        "Give the minutes, from 1 to "
                        f"{minutes(self.profile.max_duration)} for this profile.",
                    )
            else:
                # Beyond what an interval of PostgreSQL's holds it is out of any limit anyway.
                number = max(-1, min(int(cleaned["minutes"]), 10**7))
                cleaned["length"] = dt.timedelta(minutes=number)
        elif chosen:
            cleaned["length"] = dt.timedelta(minutes=int(chosen))
        return cleaned


class ReviewForm(forms.Form):
    """A verdict and its reason."""

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
        help_text="Whoever reads the history later will ask.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )
