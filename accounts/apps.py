from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts.changes import make_known, people
        from accounts.sso.configuration import providers

        # What is wrong with their file is said at the start.
        providers()
        for kind in (people.GroupMember(), people.Role(), people.FactorReset()):
            make_known(kind)
