import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from accessrequests.models import AccessRequest
from accounts import actions, stepup
from accounts.forms_people import AgentForm, end_of
from accounts.models import AgentConsent
from accounts.session import person
from accounts.validation import add_errors
from broker.errors import InvalidInput

LATELY = 20


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def agents(request: HttpRequest) -> HttpResponseBase:
    """Which agents may act on one's behalf, and what they asked for."""
    user = person(request)
    form = AgentForm(request.POST or stepup.posted(request, request.path))
    if request.method == "POST" and form.is_valid():
        ends_on = form.cleaned_data["ends_on"]
        try:
            row = actions.allow_agent(
                by=user,
                agent=form.cleaned_data["agent"],
                until=end_of(ends_on) if ends_on else None,
                proofs=stepup.proofs(request),
            )
        except InvalidInput as error:
            add_errors(form, error, until="ends_on")
        else:
            messages.success(request, f"{row.agent} may ask for access on your behalf.")
            return redirect("agents")
    asked = AccessRequest.objects.filter(on_behalf_of=user)
    context = {
        "form": form,
        "rows": AgentConsent.objects.standing().filter(person=user).select_related("agent__owner"),
        "owned": user.service_accounts.filter(is_active=True),
        "lately": asked.select_related("requester", "profile__endpoint", "grant")[:LATELY],
    }
    status = 400 if request.method == "POST" else 200
    return render(request, "accessrequests/agents.html", context, status=status)


@never_cache
@require_POST
def agent_take_back(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """No longer let an agent act on one's behalf."""
    row = actions.take_back_agent(by=person(request), consent_id=pk)
    messages.success(
        request, f"{row.agent} no longer acts for you. What it holds on your behalf is ending."
    )
    return redirect("agents")
