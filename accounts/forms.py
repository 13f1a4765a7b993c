from typing import Any

from django import forms


class SignInForm(forms.Form):
    """Email and password. Says nothing about which of the two was wrong."""

    username = forms.CharField(
        label="Email",
        max_length=254,
        widget=forms.EmailInput(
            attrs={"class": "form-control", "autocomplete": "username", "autocapitalize": "none"}
        ),
        error_messages={"required": "Give the email address of your account."},
    )
    password = forms.CharField(
        label="Password",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(
            attrs={"class": "form-control", "autocomplete": "current-password"}
        ),
        error_messages={"required": "Give your password."},
    )


class NewPasswordForm(forms.Form):
    """A password, twice. Whether it is good enough, the action says."""

    password = forms.CharField(
        label="Password",
        help_text="Twelve characters or more. A few words that only you would put together are "
        "good; a password manager is better.",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"class": "form-control", "autocomplete": "new-password"}),
        error_messages={"required": "Choose a password."},
    )
    again = forms.CharField(
        label="The same again",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"class": "form-control", "autocomplete": "new-password"}),
        error_messages={"required": "Type it again, so that a slip doesn’t lock you out."},
    )

    def clean(self) -> dict[str, Any]:
        """Both must be the same."""
        data = super().clean() or {}
        if "password" in data and "again" in data and data["password"] != data["again"]:
            self.add_error("again", "This isn’t the same as above.")
        return data


class PasswordForm(NewPasswordForm):
    """The current password, and a new one."""

    current = forms.CharField(
        label="Your password now",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(
            attrs={"class": "form-control", "autocomplete": "current-password"}
        ),
        error_messages={"required": "Give the password that you have now."},
    )
    field_order = ("current", "password", "again")


class CodeForm(forms.Form):
    """One code of an authenticator. Whether it is right, the action says."""

    code = forms.CharField(
        label="Code",
        help_text="Six digits, from your authenticator.",
        max_length=20,
        widget=forms.TextInput(
            attrs={
                "class": "form-control code-digits",
                "autocomplete": "one-time-code",
                "inputmode": "numeric",
                "spellcheck": "false",
            }
        ),
        error_messages={"required": "Give the six digits that your authenticator shows."},
    )


class RecoveryForm(forms.Form):
    """One recovery code."""

    recovery = forms.CharField(
        label="Recovery code",
        help_text="One of the ten that you kept. Each works once.",
        max_length=60,
        widget=forms.TextInput(
            attrs={
                "class": "form-control code-recovery",
                "autocomplete": "off",
                "autocapitalize": "characters",
                "spellcheck": "false",
            }
        ),
        error_messages={"required": "Give one of your recovery codes."},
    )
