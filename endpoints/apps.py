from django.apps import AppConfig


class EndpointsConfig(AppConfig):
    name = "endpoints"

    def ready(self) -> None:
        from accounts.changes import on_rights
        from accounts.sso import speaking
        from endpoints.providers import send
        from endpoints.rights import rights

        speaking.send = send
        on_rights(rights)
