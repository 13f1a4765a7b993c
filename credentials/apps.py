from django.apps import AppConfig


class CredentialsConfig(AppConfig):
    name = "credentials"

    def ready(self) -> None:
        from accounts import factors
        from credentials import sealing

        factors.seal, factors.unseal = sealing.seal, sealing.unseal
