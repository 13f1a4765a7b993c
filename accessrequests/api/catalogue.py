"""Access profiles as the caller may ask for them."""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from accessrequests.outlook import offered
from accounts.api import caller
from endpoints.api import ProfileSerializer, ProfileViewSet
from endpoints.models import AccessProfile


class OfferedProfileSerializer(ProfileSerializer):
    may_ask = serializers.BooleanField(
        source="offer.is_open", read_only=True, help_text="whether you may ask for it now"
    )
    automatic = serializers.BooleanField(
        source="offer.automatic",
        read_only=True,
        help_text="whether policy would approve an ask of yours for its default by itself",
    )
    decided_by = serializers.CharField(
        source="offer.deciders", read_only=True, help_text="who decides on its default, in words"
    )

    class Meta(ProfileSerializer.Meta):
        fields = (*ProfileSerializer.Meta.fields, "may_ask", "automatic", "decided_by")
        read_only_fields = fields


class OfferedProfileViewSet(ProfileViewSet):
    """Access profiles: what may be asked for, for how long at most, and who reviews it; and what
    would come of it if you asked."""

    serializer_class = OfferedProfileSerializer

    def paginate_queryset(self, queryset: QuerySet[AccessProfile] | Any) -> Any:
        page = super().paginate_queryset(queryset)
        self._offer(page or ())
        return page

    def get_object(self) -> AccessProfile:
        row = super().get_object()
        self._offer([row])
        return row

    def _offer(self, rows: Iterable[Any]) -> None:
        """Put on each what it is to the caller, with as many queries for many as for one."""
        user, rows = caller(self.request), list(rows)
        pks = [row.pk for row in rows]
        open_ids: set[object] = set(
            AccessProfile.objects.open_to(user).filter(pk__in=pks).values_list("pk", flat=True)
        )
        for row, offer in zip(rows, offered(user, rows, open_ids), strict=True):
            row.offer = offer
