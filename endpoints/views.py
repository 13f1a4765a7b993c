"""What owners and administrators set on the page of an endpoint."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts import stepup
from accounts.session import person
from accounts.validation import add_errors
from broker.errors import InvalidInput, NotFound
from endpoints.actions import set_price
from endpoints.forms import PriceForm
from endpoints.models import Endpoint
from endpoints.permissions import check_price
from endpoints.prices import price_list


@never_cache
@require_POST
def price_set(request: HttpRequest, slug: str) -> HttpResponse:
    """Say what a model costs from a day on."""
    user = person(request)
    endpoint = Endpoint.objects.visible_to(user).filter(slug=slug).first()
    if endpoint is None:
        raise NotFound(kind="endpoint", id=slug)
    check_price(user, endpoint)
    form = PriceForm(request.POST)
    if form.is_valid():
        try:
            row = set_price(
                by=user,
                endpoint=endpoint,
                proofs=stepup.proofs(request),
                **form.cleaned_data,
            )
        except InvalidInput as error:
            add_errors(form, error)
        else:
            messages.success(request, f"{row.model} has its price from {row.since} on.")
            return redirect("endpoint", slug=slug)
    context = {"endpoint": endpoint, "price_form": form, "prices": price_list(endpoint)}
    return render(request, "endpoints/price.html", context, status=400)
