from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        from accounts import factors, telling
        from accounts.changes import deciding
        from notifications.outbox import (
            change_told,
            factor_changed,
            password_changed,
            service_ends,
            token_in_url,
            token_leaked,
        )

        factors.tell = factor_changed
        deciding.tell = change_told
        telling.service_ends = service_ends
        telling.password_changed = password_changed
        telling.token_in_url = token_in_url
        telling.token_leaked = token_leaked
