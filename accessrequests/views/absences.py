import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from accessrequests import actions
from accessrequests.forms import AbsenceForm
from accessrequests.models import Absence
from accounts.session import person
from accounts.validation import add_errors
from audit import clock
from broker.errors import InvalidInput


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def absences(request: HttpRequest) -> HttpResponseBase:
    """Out of office: what is noted, and the form for more."""
    user = person(request)
    form = AbsenceForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            row = actions.note_absence(by=user, **form.cleaned_data)
        except InvalidInput as error:
            add_errors(form, error)
        else:
            told = f"{row.delegate} is told" if row.delegate else "Nobody is told in your place"
            messages.success(request, f"Noted. {told} while you are away.")
            return redirect("absences")
    now = clock.now()
    context = {
        "form": form,
        "rows": Absence.objects.visible_to(user).filter(ends_at__gt=now).select_related("delegate"),
        "now": now,
        "zone": timezone.localtime(now),
    }
    status = 400 if form.errors else 200
    return render(request, "accessrequests/absences.html", context, status=status)


@never_cache
@require_POST
def absence_drop(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Be back, or not go after all."""
    actions.drop_absence(by=person(request), absence_id=pk)
    messages.success(request, "Dropped. You are told of what waits for you again.")
    return redirect("absences")
