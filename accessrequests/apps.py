from django.apps import AppConfig


class AccessRequestsConfig(AppConfig):
    name = "accessrequests"

    def ready(self) -> None:
        """Let `accounts`, a layer below, know who reviews, what is proved for what, and how a
        policy changes."""
        from accessrequests import policy_changes, purposes
        from accessrequests.permissions import is_reviewer
        from accounts import factors
        from accounts.changes import make_known, on_rights
        from accounts.stepup import Action, in_words_by, with_others_by

        factors.needed_by(lambda user: "You review requests" if is_reviewer(user) else "")
        make_known(policy_changes.PolicyChange())
        on_rights(policy_changes.rights)
        in_words_by(Action.ASK, purposes.asking)
        in_words_by(Action.REVIEW, purposes.reviewing)
        in_words_by(Action.POLICY, purposes.policy)
        with_others_by(Action.REVIEW, purposes.others_to_review)
