from typing import Any

from django import forms

from accounts.models import User
from notifications.webhooks.types import TYPES

OVERLAPS = [(0, "Not at all: it leaked"), (3600, "An hour"), (86_400, "A day"), (604_800, "7 days")]


def _groups() -> list[tuple[str, list[tuple[str, str]]]]:
    """The types by what they are about, in the order of the table."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in TYPES:
        about = name.partition(".")[0].replace("_", " ").capitalize().replace("Api", "API")
        found.setdefault(about, []).append((name, name))
    return list(found.items())


class WebhookForm(forms.Form):
    """A webhook, new or to be changed; `owners` are whose it can be, none where it's decided."""

    name = forms.CharField(
        label="What receives it",
        max_length=100,
        widget=forms.TextInput(attrs={"class": "form-control", "autocomplete": "off"}),
    )
    url = forms.CharField(
        label="URL",
        max_length=500,
        help_text="Keyturn POSTs to it. https, or http within your own network.",
        widget=forms.URLInput(
            attrs={
                "class": "form-control",
                "autocomplete": "off",
                "placeholder": "https://ci.example.com/hooks/keyturn",
            }
        ),
    )
    owner = forms.TypedChoiceField(
        label="Whose it is",
        help_text="It is told what its owner may see.",
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    types = forms.MultipleChoiceField(
        label="Types of events",
        choices=_groups,
        required=False,
        help_text="All of them, unless you choose.",
        widget=forms.CheckboxSelectMultiple(attrs={"class": "form-check-input"}),
    )

    def __init__(self, *args: Any, owners: list[User] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not owners or len(owners) == 1:
            del self.fields["owner"]
        else:
            choices = [(owner.email, str(owner)) for owner in owners]
            self.fields["owner"].choices = choices  # type: ignore[attr-defined]

    def groups(self) -> list[tuple[str, list[tuple[str, str, bool]]]]:
        """The types to choose from: name, what it says, whether it's chosen."""
        chosen = set(self["types"].value() or ())
        return [
            (about, [(name, TYPES[name], name in chosen) for name, _ in names])
            for about, names in _groups()
        ]


class RotateForm(forms.Form):
    """Another secret."""

    overlap = forms.TypedChoiceField(
        label="The secret of now signs too for",
        choices=OVERLAPS,
        coerce=int,
        initial=86_400,
        widget=forms.Select(attrs={"class": "form-select input-short"}),
    )


class ReplayForm(forms.Form):
    """What to send again."""

    since = forms.DateTimeField(
        label="Since",
        widget=forms.DateTimeInput(
            attrs={"class": "form-control webhook-since", "type": "datetime-local"},
            format="%Y-%m-%dT%H:%M",
        ),
        error_messages={"invalid": "Give a day and a time, such as 2026-11-23 14:30."},
    )
    delivered = forms.BooleanField(label="Also what was delivered", required=False)
