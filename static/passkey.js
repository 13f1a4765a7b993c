// Passkeys, for forms with data-passkey: the address that says what the browser is to ask for. What
// the passkey answers goes back as an ordinary form. Without this file codes still work.
(function () {
  "use strict";

  const able = Boolean(window.PublicKeyCredential && navigator.credentials);
  const forms = Array.from(document.querySelectorAll("form[data-passkey]"));
  forms.forEach((form) => {
    form.hidden = !able;
  });
  document.querySelectorAll("[data-no-passkey]").forEach((element) => {
    element.hidden = able;
  });

  function bytes(text) {
    const plain = window.atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, (character) => character.charCodeAt(0));
  }

  function text(buffer) {
    const plain = Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join("");
    return window.btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  function known(descriptors) {
    return (descriptors || []).map((each) => ({ ...each, id: bytes(each.id) }));
  }

  function wanted(options) {
    const publicKey = { ...options, challenge: bytes(options.challenge) };
    if (options.user) publicKey.user = { ...options.user, id: bytes(options.user.id) };
    if (options.allowCredentials) publicKey.allowCredentials = known(options.allowCredentials);
    if (options.excludeCredentials) {
      publicKey.excludeCredentials = known(options.excludeCredentials);
    }
    return { publicKey };
  }

  function written(credential) {
    const { response } = credential;
    const parts = { clientDataJSON: text(response.clientDataJSON) };
    if (response.attestationObject) {
      parts.attestationObject = text(response.attestationObject);
      parts.transports = response.getTransports ? response.getTransports() : [];
    } else {
      parts.authenticatorData = text(response.authenticatorData);
      parts.signature = text(response.signature);
      if (response.userHandle) parts.userHandle = text(response.userHandle);
    }
    return JSON.stringify({
      id: credential.id,
      rawId: text(credential.rawId),
      type: credential.type,
      clientExtensionResults: credential.getClientExtensionResults(),
      response: parts,
    });
  }

  const WORDS = {
    NotAllowedError: "It was cancelled, or took too long. Try again, or another way.",
    InvalidStateError: "This device has a passkey of yours already.",
    NotSupportedError: "This device can’t make a passkey that asks who you are.",
    SecurityError: "Passkeys don’t work at this address of Keyturn.",
  };

  function tell(form, sentence) {
    const place = form.querySelector("[data-passkey-error]");
    place.replaceChildren();
    if (!sentence) return;
    const notice = document.createElement("p");
    notice.className = "notice notice-bad";
    notice.textContent = sentence;
    place.append(notice);
  }

  async function ask(form) {
    const body = new URLSearchParams(new FormData(form));
    const answer = await window.fetch(form.dataset.passkey, { method: "POST", body });
    if (answer.redirected) {
      // To a proof that isn't fresh any more, or to signing in.
      window.location.assign(answer.url);
      return null;
    }
    if (!answer.ok) throw new Error("refused");
    const options = wanted(await answer.json());
    const how = form.hasAttribute("data-passkey-new") ? "create" : "get";
    return navigator.credentials[how](options);
  }

  async function run(form) {
    const button = form.querySelector("[type=submit]");
    tell(form, "");
    button.setAttribute("aria-disabled", "true");
    try {
      const credential = await ask(form);
      if (!credential) return;
      form.elements.namedItem("credential").value = written(credential);
      form.requestSubmit();
    } catch (error) {
      tell(form, WORDS[error.name] || "That didn’t work. Load the page again, then try once more.");
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  // At the window, so before keyturn.js, which takes a form that was sent once for sent.
  window.addEventListener(
    "submit",
    (event) => {
      const form = event.target;
      if (!forms.includes(form) || form.elements.namedItem("credential").value) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      const button = form.querySelector("[type=submit]");
      if (button.getAttribute("aria-disabled") !== "true") run(form);
    },
    true,
  );
})();
