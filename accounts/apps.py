from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import people, stepup
        from accounts.actions.tokens import in_words as tokens_in_words
        from accounts.changes import make_known
        from accounts.changes.people import FactorReset, GroupMember, Role
        from accounts.changes.workloads import Issuer, Rule
        from accounts.sso.configuration import providers
        from accounts.workloads.permissions import in_words

        # What is wrong with their file is said at the start.
        providers()
        for kind in (GroupMember(), Role(), FactorReset(), Issuer(), Rule()):
            make_known(kind)
        stepup.in_words_by(stepup.Action.PEOPLE, people.in_words)
        stepup.in_words_by(stepup.Action.TOKEN, tokens_in_words)
        stepup.in_words_by(
            stepup.Action.AGENT, lambda _reader, _about: "Let an agent act on your behalf"
        )
        stepup.in_words_by(stepup.Action.ISSUER, in_words)
