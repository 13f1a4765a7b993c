from django import forms

from credentials.actions.rotations import NOTE_LENGTH


class KeyForm(forms.Form):
    """A new key, typed once and never shown again."""

    key = forms.CharField(
        label="New key",
        help_text="It goes to Vault, and nobody can read it back here.",
        max_length=4000,
        widget=forms.PasswordInput(
            attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false"}
        ),
        error_messages={"required": "Paste the key that the provider gave you."},
    )


class LeakForm(forms.Form):
    """Where a key turned up."""

    reason = forms.CharField(
        label="Where did it turn up?",
        help_text="Its owner and all administrators read it. Never paste the key itself.",
        max_length=NOTE_LENGTH,
        widget=forms.TextInput(attrs={"class": "form-control", "autocomplete": "off"}),
        error_messages={"required": "Say where it turned up: in a log, a chat, a repository."},
    )
    stop = forms.BooleanField(required=False)
