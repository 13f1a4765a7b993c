"""Where SCIM's views are, each imported at its first call: the schemas that they need take longer
to load than the rest of the portal, and only a directory calls them."""

from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def _endpoint(**names: str) -> Callable[..., HttpResponse]:
    """The view of one path, by the names of its methods' handlers in accounts/scim/views.py."""

    @csrf_exempt
    @login_not_required
    def view(request: HttpRequest, **named: str) -> HttpResponse:
        from accounts.scim import views

        handlers = {method: getattr(views, name) for method, name in names.items()}
        return views.handled(request, handlers, **named)

    return view


urlpatterns = [
    path("ServiceProviderConfig", _endpoint(GET="show_config"), name="scim-config"),
    path("ResourceTypes", _endpoint(GET="list_types"), name="scim-types"),
    path("ResourceTypes/<str:pk>", _endpoint(GET="read_type"), name="scim-type"),
    path("Schemas", _endpoint(GET="list_schemas"), name="scim-schemas"),
    path("Schemas/<str:pk>", _endpoint(GET="read_schema"), name="scim-schema"),
    path("Users", _endpoint(GET="list_people", POST="create_person"), name="scim-people"),
    path("Users/.search", _endpoint(POST="list_people"), name="scim-people-search"),
    path(
        "Users/<str:pk>",
        _endpoint(
            GET="read_person",
            PUT="replace_person",
            PATCH="patch_person",
            DELETE="remove_person",
        ),
        name="scim-person",
    ),
    path("Groups", _endpoint(GET="list_groups", POST="create_group"), name="scim-groups"),
    path("Groups/.search", _endpoint(POST="list_groups"), name="scim-groups-search"),
    path(
        "Groups/<str:pk>",
        _endpoint(
            GET="read_group",
            PUT="replace_group",
            PATCH="patch_group",
            DELETE="remove_group",
        ),
        name="scim-group",
    ),
    path(".search", _endpoint(POST="refuse"), name="scim-search"),
    path("Bulk", _endpoint(POST="refuse"), name="scim-bulk"),
    path(
        "Me",
        _endpoint(**dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), "refuse")),
        name="scim-me",
    ),
    path(
        "<path:rest>",
        _endpoint(**dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), "nowhere")),
        name="scim-nowhere",
    ),
]
