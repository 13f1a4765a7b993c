from django.urls import path

from accounts.scim import views
from accounts.scim.views import endpoint

urlpatterns = [
    path("ServiceProviderConfig", endpoint(GET=views.show_config), name="scim-config"),
    path("ResourceTypes", endpoint(GET=views.list_types), name="scim-types"),
    path("ResourceTypes/<str:pk>", endpoint(GET=views.read_type), name="scim-type"),
    path("Schemas", endpoint(GET=views.list_schemas), name="scim-schemas"),
    path("Schemas/<str:pk>", endpoint(GET=views.read_schema), name="scim-schema"),
    path("Users", endpoint(GET=views.list_people, POST=views.create_person), name="scim-people"),
    path("Users/.search", endpoint(POST=views.list_people), name="scim-people-search"),
    path(
        "Users/<str:pk>",
        endpoint(
            GET=views.read_person,
            PUT=views.replace_person,
            PATCH=views.patch_person,
            DELETE=views.remove_person,
        ),
        name="scim-person",
    ),
    path("Groups", endpoint(GET=views.list_groups, POST=views.create_group), name="scim-groups"),
    path("Groups/.search", endpoint(POST=views.list_groups), name="scim-groups-search"),
    path(
        "Groups/<str:pk>",
        endpoint(
            GET=views.read_group,
            PUT=views.replace_group,
            PATCH=views.patch_group,
            DELETE=views.remove_group,
        ),
        name="scim-group",
    ),
    path(".search", endpoint(POST=views.refuse), name="scim-search"),
    path("Bulk", endpoint(POST=views.refuse), name="scim-bulk"),
    path(
        "Me",
        endpoint(**dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), views.refuse)),
        name="scim-me",
    ),
    path(
        "<path:rest>",
        endpoint(**dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), views.nowhere)),
        name="scim-nowhere",
    ),
]
