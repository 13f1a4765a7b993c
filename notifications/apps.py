from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        from accounts import factors
        from notifications.outbox import factor_changed

        factors.tell = factor_changed
