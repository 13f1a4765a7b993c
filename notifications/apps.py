from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        from accounts import factors, telling
        from accounts.changes import deciding
        from accounts.stepup import Action, in_words_by
        from notifications.outbox import (
            change_told,
            factor_changed,
            password_changed,
            service_ends,
            token_in_url,
            token_leaked,
        )
        from notifications.webhooks.actions import purpose_in_words

        factors.tell = factor_changed
        deciding.tell = change_told
        telling.service_ends = service_ends
        telling.password_changed = password_changed
        in_words_by(Action.WEBHOOK, purpose_in_words)
        telling.token_in_url = token_in_url
        telling.token_leaked = token_leaked
