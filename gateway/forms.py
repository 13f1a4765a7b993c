from django import forms

from credentials.stopping import REASON_LENGTH

STOP, END = "stop", "end"


class StopForm(forms.Form):
    """How far to go, and why."""

    how = forms.ChoiceField(
        label="What shall happen",
        initial=STOP,
        widget=forms.RadioSelect,
        choices=[
            (STOP, "Stop it: nothing is let through until somebody lifts the stop"),
            (END, "End all access: everything ends now, and people may ask again at once"),
        ],
        error_messages={"required": "Choose one of the two."},
    )
    reason = forms.CharField(
        label="Why",
        help_text="Everybody whose access ends reads it.",
        max_length=REASON_LENGTH,
        widget=forms.TextInput(attrs={"class": "form-control", "autocomplete": "off"}),
        error_messages={"required": "Say why: everybody whose access ends reads it."},
    )
