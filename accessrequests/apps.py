from django.apps import AppConfig


class AccessRequestsConfig(AppConfig):
    name = "accessrequests"
