"""Being out of office."""

from typing import ClassVar

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests import actions
from accessrequests.models import Absence
from accounts.api import StrictSerializer, VisibleViewSet, caller
from accounts.scopes import Verb


class NoteSerializer(StrictSerializer):
    """An absence, and who is told in one's place of what they may decide in their own right."""

    starts_at = serializers.DateTimeField(required=False, help_text="now, when left out")
    ends_at = serializers.DateTimeField()
    delegate = serializers.EmailField(required=False, allow_blank=True)
    note = serializers.CharField(required=False, allow_blank=True, max_length=200)


class AbsenceSerializer(serializers.ModelSerializer[Absence]):
    delegate = serializers.EmailField(source="delegate.email", read_only=True, allow_null=True)

    class Meta:
        model = Absence
        fields = ("id", "starts_at", "ends_at", "delegate", "note")
        read_only_fields = fields


@extend_schema_view(
    create=extend_schema(request=NoteSerializer, responses={201: AbsenceSerializer}),
)
class AbsenceViewSet(mixins.ListModelMixin, VisibleViewSet[Absence]):
    """The caller's own absences. They give nobody a right."""

    queryset = Absence.objects.select_related("delegate").order_by()
    serializer_class = AbsenceSerializer
    filter_backends = ()
    verbs: ClassVar = {"create": Verb.REQUEST, "destroy": Verb.REQUEST}

    def create(self, request: Request) -> Response:
        """Be out of office."""
        body = NoteSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        row = actions.note_absence(by=caller(request), **body.validated_data)
        return Response(AbsenceSerializer(row).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Be back, or not go after all."""
        actions.drop_absence(by=caller(request), absence_id=pk)
        return Response(status=status.HTTP_204_NO_CONTENT)
