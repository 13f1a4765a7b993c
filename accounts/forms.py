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
