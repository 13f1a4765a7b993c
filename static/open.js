// Hands a session over to the gateway as soon as the page is there; its button does the same.
document.querySelector("form[data-open]").requestSubmit();
