from django.apps import AppConfig


class EndpointsConfig(AppConfig):
    name = "endpoints"

    def ready(self) -> None:
        from accounts import published, scopes
        from accounts.changes import on_rights
        from accounts.stepup import Action, in_words_by
        from endpoints import telling
        from endpoints.permissions import changing_in_words, slugs_seen_by
        from endpoints.providers import send
        from endpoints.rights import rights
        from notifications.webhooks import posting, seeing

        published.send = send
        scopes.endpoints_seen_by = slugs_seen_by
        posting.send, posting.check = telling.post, telling.check
        seeing.endpoints_of = telling.owned
        on_rights(rights)
        in_words_by(Action.ENDPOINT, changing_in_words)
