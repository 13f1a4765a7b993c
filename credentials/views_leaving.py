"""What somebody holds: to look before, and to see afterwards that everything is gone."""

import uuid

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from audit import clock
from credentials.leaving import holding


@never_cache
@require_safe
def person_access(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Everything that this person holds or held, with the state of each credential."""
    user = person(request)
    row = fetch(User.objects.visible_to(user).select_related("owner"), pk)
    now = clock.now()
    context = {
        "person": row,
        "now": now,
        "held": holding(row, now),
        "belongs_to": "/people/" if user.sees_everything else "",
    }
    part = getattr(request, "htmx", False) and request.htmx.target == "held"  # type: ignore[attr-defined]
    page = "credentials/_leaving.html" if part else "credentials/leaving.html"
    return render(request, page, context)
