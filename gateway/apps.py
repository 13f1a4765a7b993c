from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "The enforcement point: calls, budgets, live access"

    def ready(self) -> None:
        from credentials.actions.rotating import on_publishing
        from gateway.keys import users_of_older

        on_publishing(users_of_older)
