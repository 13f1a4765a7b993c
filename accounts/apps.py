from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts.sso.configuration import providers

        # What is wrong with their file is said at the start.
        providers()
