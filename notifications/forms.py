from typing import Any

from django import forms

from notifications.kinds import Email, Topic
from notifications.models import HANDLE, Preference

HOURS = [(hour, f"{hour:02}:00") for hour in range(24)]


class SettingsForm(forms.Form):
    """What to be told of, and how. Fields that the installation can't serve aren't there."""

    chat_handle = forms.RegexField(
        label="Your name in the chat",
        regex=HANDLE,
        required=False,
        max_length=64,
        help_text="As it is there, without @. Leave it empty for no chat.",
        widget=forms.TextInput(
            attrs={"class": "form-control", "autocomplete": "off", "autocapitalize": "none"}
        ),
        error_messages={
            "invalid": "Give letters, digits, dots, dashes and underscores only, without @."
        },
    )
    digest_hour = forms.TypedChoiceField(
        label="When to send what comes once a day",
        choices=HOURS,
        coerce=int,
        widget=forms.Select(attrs={"class": "form-select input-short"}),
        error_messages={"invalid_choice": "Choose a full hour, from 00:00 to 23:00."},
    )

    def __init__(self, *args: Any, email: bool, chat: bool, zone: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["digest_hour"].help_text = f"In your time zone, {zone}."
        for topic in Topic:
            if topic == Topic.SECURITY:
                continue
            if email:
                self.fields[f"email_{topic.value}"] = forms.ChoiceField(
                    label=f"{topic.label}: e-mail",
                    choices=Email.choices,
                    widget=forms.Select(attrs={"class": "form-select"}),
                    error_messages={"invalid_choice": "Choose one of the three."},
                )
            if chat:
                self.fields[f"chat_{topic.value}"] = forms.BooleanField(
                    label=f"{topic.label}: chat",
                    required=False,
                    widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
                )
        if not email:
            del self.fields["digest_hour"]
        if not chat:
            del self.fields["chat_handle"]

    def topics(self) -> list[dict[str, Any]]:
        """A row for each topic, with its fields."""
        return [
            {
                "label": topic.label,
                "email": self[name] if (name := f"email_{topic.value}") in self.fields else None,
                "chat": self[name] if (name := f"chat_{topic.value}") in self.fields else None,
            }
            for topic in Topic
            if topic != Topic.SECURITY
        ]

    @staticmethod
    def initial_of(chosen: Preference) -> dict[str, Any]:
        """The form as this person left it."""
        return {field.name: getattr(chosen, field.name) for field in Preference._meta.fields}
