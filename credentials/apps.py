from django.apps import AppConfig


class CredentialsConfig(AppConfig):
    name = "credentials"

    def ready(self) -> None:
        from accessrequests.actions import on_denied_afterwards
        from accounts import factors
        from accounts.stepup import Action, in_words_by
        from credentials import purposes, sealing
        from credentials.actions import end_denied
        from credentials.kinds import kinds
        from endpoints.kinds import make_known
        from notifications.webhooks import secrets

        for kind in kinds().values():
            make_known(kind)
        on_denied_afterwards(end_denied)

        factors.seal, factors.unseal = sealing.seal, sealing.unseal
        secrets.seal, secrets.unseal = sealing.seal_webhook, sealing.unseal_webhook
        in_words_by(Action.CHECK_OUT, purposes.checking_out)
        in_words_by(Action.STOP, purposes.stopping)
        in_words_by(Action.LIFT, purposes.lifting)
        in_words_by(Action.ROTATE, purposes.rotating)
