from django.apps import AppConfig


class EndpointsConfig(AppConfig):
    name = "endpoints"

    def ready(self) -> None:
        from accounts.sso import speaking
        from endpoints.providers import send

        speaking.send = send
