from django.apps import AppConfig


class AccessRequestsConfig(AppConfig):
    name = "accessrequests"

    def ready(self) -> None:
        """Let `accounts`, a layer below, know who reviews."""
        from accessrequests.permissions import is_reviewer
        from accounts import factors

        factors.needed_by(lambda user: "You review requests" if is_reviewer(user) else "")
