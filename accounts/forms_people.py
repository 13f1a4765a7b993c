"""What the pages of people, groups and service accounts take."""

import datetime as dt
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.utils import timezone

TEXT: dict[str, Any] = {"class": "form-control"}


def _zones() -> list[tuple[str, str]]:
    return [(name, name.replace("_", " ")) for name in sorted(available_timezones())]


class ProfileForm(forms.Form):
    """What people say of themselves."""

    full_name = forms.CharField(
        label="Name",
        max_length=150,
        help_text="As colleagues know you: it stands beside what you ask for and decide.",
        widget=forms.TextInput(attrs=TEXT | {"autocomplete": "name"}),
        error_messages={"required": "Say what you are called."},
    )
    time_zone = forms.ChoiceField(
        label="Time zone",
        help_text="Times in the portal and in mail are shown in it.",
        choices=_zones,
        widget=forms.Select(attrs={"class": "form-select"}),
    )


class PersonForm(forms.Form):
    """A person to be added."""

    email = forms.EmailField(
        label="E-mail",
        help_text="What they sign in with. It can’t be changed later.",
        widget=forms.EmailInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Give their e-mail address."},
    )
    full_name = forms.CharField(
        label="Full name",
        max_length=150,
        widget=forms.TextInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Give their name."},
    )


class ServiceForm(forms.Form):
    """A service account to be added."""

    full_name = forms.CharField(
        label="Name",
        max_length=150,
        help_text="What the program does, so that reviewers know whom they let in.",
        widget=forms.TextInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Say what it is."},
    )
    email = forms.EmailField(
        label="Address",
        help_text="Its name on the record, such as nightly-eval@service.example.com.",
        widget=forms.EmailInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Give it an address."},
    )
    owner = forms.EmailField(
        label="Owner",
        help_text="E-mail of the person who answers for it. It ends when their account does.",
        widget=forms.EmailInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Somebody has to answer for it."},
    )
    ends_on = forms.DateField(
        label="Ends on",
        help_text="At most a year from now. Its owner is told 14 days before, and may extend it.",
        widget=forms.DateInput(attrs=TEXT | {"type": "date"}),
        error_messages={"required": "Say until when it is needed."},
    )


class ExtendForm(forms.Form):
    """Until when a service account goes on."""

    ends_on = forms.DateField(
        label="Ends on",
        help_text="At most a year from now.",
        widget=forms.DateInput(attrs=TEXT | {"type": "date"}),
        error_messages={"required": "Say until when it is needed."},
    )


class AgentForm(forms.Form):
    """Which service account may act on one's behalf, until when."""

    agent = forms.EmailField(
        label="Its e-mail address",
        help_text="Of a service account. Whoever answers for it knows it.",
        widget=forms.EmailInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Give its e-mail address."},
    )
    ends_on = forms.DateField(
        label="Until the end of",
        required=False,
        help_text="Left empty, until you take it back.",
        widget=forms.DateInput(attrs=TEXT | {"type": "date"}),
    )


class RolesForm(forms.Form):
    """What somebody is in Keyturn, beside being a person."""

    administrator = forms.BooleanField(
        label="Administrator",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    auditor = forms.BooleanField(
        label="Auditor",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    reason = forms.CharField(
        label="Why",
        required=False,
        max_length=1000,
        help_text="A second administrator decides by this. Taking a role away needs nobody else.",
        widget=forms.TextInput(attrs=TEXT | {"autocomplete": "off"}),
    )


class WhyForm(forms.Form):
    """Why something is asked of a second administrator."""

    reason = forms.CharField(
        label="Why, and how you know that it is them",
        max_length=1000,
        widget=forms.TextInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Say why: a second administrator decides by this."},
    )


class GroupForm(forms.Form):
    """A group to be added."""

    name = forms.CharField(
        label="Name",
        max_length=100,
        widget=forms.TextInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Say what it is called."},
    )
    slug = forms.SlugField(
        label="Short name",
        help_text="Small letters, digits and hyphens: what policies and the inventory call it.",
        widget=forms.TextInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Give it a short name."},
    )


class ByEmailForm(forms.Form):
    """Somebody, by e-mail, and why."""

    email = forms.EmailField(
        label="E-mail",
        widget=forms.EmailInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Give their e-mail address."},
    )
    reason = forms.CharField(
        label="Why",
        required=False,
        max_length=1000,
        help_text="A second administrator decides by this.",
        widget=forms.TextInput(attrs=TEXT | {"autocomplete": "off"}),
        error_messages={"required": "Say why: a second administrator decides by this."},
    )


def end_of(day: dt.date) -> dt.datetime:
    """The end of this day in the reader's zone."""
    return timezone.make_aware(dt.datetime.combine(day, dt.time(23, 59)))
