from django import forms


def _price(label: str) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        min_value=0,
        max_digits=12,
        decimal_places=4,
        widget=forms.NumberInput(
            attrs={"class": "form-control input-short", "step": "any", "min": "0"}
        ),
        error_messages={
            "required": "Give an amount in US dollars, such as 0.15.",
            "invalid": "Give an amount in US dollars, such as 0.15.",
        },
    )


class PriceForm(forms.Form):
    """What a model costs from a day on. It reads what was typed; the action decides."""

    model = forms.CharField(
        label="Model",
        max_length=200,
        widget=forms.TextInput(attrs={"class": "form-control input-medium", "list": "models"}),
        error_messages={"required": "Name the model as the upstream knows it."},
    )
    input_price = _price("Input")
    output_price = _price("Output")
    since = forms.DateField(
        label="From",
        required=False,
        help_text="UTC; today if left out",
        widget=forms.DateInput(attrs={"type": "date", "class": "form-control input-medium"}),
        error_messages={"invalid": "Give a day, such as 2026-11-30."},
    )
