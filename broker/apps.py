from django.apps import AppConfig


class BrokerConfig(AppConfig):
    name = "broker"

    def ready(self) -> None:
        # Tasks sent by web go through this app's broker settings.
        from broker.celery import app  # noqa: F401
