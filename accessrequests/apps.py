from django.apps import AppConfig


class AccessRequestsConfig(AppConfig):
    name = "accessrequests"

    def ready(self) -> None:
        """Let `accounts`, a layer below, know who reviews, and how a policy changes."""
        from accessrequests import policy_changes
        from accessrequests.permissions import is_reviewer
        from accounts import factors
        from accounts.changes import make_known, on_rights

        factors.needed_by(lambda user: "You review requests" if is_reviewer(user) else "")
        make_known(policy_changes.PolicyChange())
        on_rights(policy_changes.rights)
