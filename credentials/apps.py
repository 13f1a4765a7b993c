from django.apps import AppConfig


class CredentialsConfig(AppConfig):
    name = "credentials"

    def ready(self) -> None:
        from accessrequests.actions import on_denied_afterwards
        from accounts import factors
        from credentials import sealing
        from credentials.actions import end_denied
        from credentials.kinds import kinds
        from endpoints.kinds import make_known

        for kind in kinds().values():
            make_known(kind)
        on_denied_afterwards(end_denied)

        factors.seal, factors.unseal = sealing.seal, sealing.unseal
