from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models

from accounts.models.people import User
from audit.clock import ClockTimestamp
from audit.ids import new_id


class SignInTry(models.Model):
    """One failed sign-in, counted per account and per account with address."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    account = models.CharField(max_length=64, help_text="SHA-256 of the address typed")
    address = models.GenericIPAddressField(null=True)

    class Meta:
        indexes = [models.Index(fields=["account", "-at"], name="sign_in_try_recent")]

    def __str__(self) -> str:
        return f"{self.account[:8]} at {self.at}"


class Invitation(models.Model):
    """A link that lets one person in once, to set a password. Only a digest of it is stored."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="invitations")
    digest = models.BinaryField(max_length=32, unique=True)
    invited_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, related_name="+", help_text="empty: an operator"
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"an invitation of {self.person}"


class Session(AbstractBaseSession):
    """A browser in which somebody is signed in (accounts.sessions), or is about to."""

    person = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="sessions")
    began = models.BigIntegerField(null=True, help_text="seconds since the epoch")
    how = models.CharField(max_length=60, help_text="password, passkey, or a provider's name")
    provider_session = models.CharField(max_length=200, help_text="`sid` at the OpenID provider")
    address = models.GenericIPAddressField(null=True, help_text="of its last call")
    agent = models.CharField(max_length=300, help_text="what the browser says it is")

    class Meta(AbstractBaseSession.Meta):
        indexes = [
            models.Index(
                fields=["provider_session"],
                name="session_of_provider",
                condition=~models.Q(provider_session=""),
            )
        ]

    @classmethod
    def get_session_store_class(cls) -> type:
        from accounts.sessions import SessionStore

        return SessionStore


class ProviderSignIn(models.Model):
    """One sign-in by an OpenID provider, which is asked again whether it still stands for it.

    In a row of its own: tokens that are used up and replaced can't be in a session, of which two
    requests at once write the older state back. A session names its row, and without it is over.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="provider_sign_ins")
    provider = models.CharField(max_length=40, help_text="its slug")
    subject = models.CharField(max_length=255, help_text="`sub` at the provider")
    provider_session = models.CharField(max_length=200, help_text="as in its Session")
    sealed = models.TextField(help_text="the provider's tokens, as Vault encrypted them")
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    asked_at = models.DateTimeField(help_text="when the provider last stood for it")

    class Meta:
        indexes = [models.Index(fields=["provider", "subject"], name="sign_in_by_subject")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(sealed__startswith="vault:"), name="provider_tokens_are_sealed"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.person} by {self.provider}"


class LogoutToken(models.Model):
    """A logout token of a provider that was taken, so that it isn't taken twice."""

    id = models.BigAutoField(primary_key=True)
    digest = models.BinaryField(max_length=32, unique=True, help_text="of its provider and `jti`")
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    def __str__(self) -> str:
        return f"taken at {self.at}"
