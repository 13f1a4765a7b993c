from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import people, stepup
        from accounts.changes import make_known
        from accounts.changes.people import FactorReset, GroupMember, Role
        from accounts.sso.configuration import providers

        # What is wrong with their file is said at the start.
        providers()
        for kind in (GroupMember(), Role(), FactorReset()):
            make_known(kind)
        stepup.in_words_by(stepup.Action.PEOPLE, people.in_words)
