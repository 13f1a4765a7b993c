// The portal's behaviour, without a build step and within the Content-Security-Policy: no inline
// handlers, no eval, and no page that needs this to be read or to act. It makes time move, copies,
// switches tabs, and lets the queue be worked by keyboard.
(function () {
  "use strict";

  const MINUTE = 60_000;
  const reducedMotion = window.matchMedia("(prefers-reduced-motion: reduce)");
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));

  // ── Saying things to screen readers ───────────────────────────────────────────────────────
  function say(sentence) {
    const live = document.getElementById("live");
    if (!live) return;
    live.textContent = "";
    window.setTimeout(() => {
      live.textContent = sentence;
    }, 60);
  }

  // ── Countdowns ────────────────────────────────────────────────────────────────────────────
  // The server says what time it is beside each deadline, so that a wrong clock on this side
  // makes no difference. The offset is taken once for each element, when it enters the page.
  const offsets = new WeakMap();
  const lastSaid = new WeakMap();

  function serverNow(element) {
    if (!offsets.has(element)) {
      const theirs = Date.parse(element.dataset.now);
      offsets.set(element, Number.isNaN(theirs) ? 0 : theirs - Date.now());
    }
    return Date.now() + offsets.get(element);
  }

  const two = (n) => String(n).padStart(2, "0");

  function figure(ms) {
    const seconds = Math.max(0, Math.ceil(ms / 1000));
    const days = Math.floor(seconds / 86400);
    const hours = Math.floor((seconds % 86400) / 3600);
    const minutes = Math.floor((seconds % 3600) / 60);
    const rest = seconds % 60;
    if (days) return `${days} d ${two(hours)}:${two(minutes)}`;
    if (hours) return `${hours}:${two(minutes)}:${two(rest)}`;
    return `${minutes}:${two(rest)}`;
  }

  const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

  function inWords(ms) {
    const minutes = Math.ceil(ms / MINUTE);
    if (ms <= 0) return "no time";
    if (minutes < 1 || ms < MINUTE) return "less than a minute";
    if (minutes < 60) return count(minutes, "minute");
    const hours = Math.floor(minutes / 60);
    const rest = minutes % 60;
    if (hours < 24) return count(hours, "hour") + (rest ? ` ${count(rest, "minute")}` : "");
    return count(Math.floor(hours / 24), "day") + (hours % 24 ? ` ${count(hours % 24, "hour")}` : "");
  }

  // Announced when crossed, never each second.
  const MOMENTS = [10 * MINUTE, 5 * MINUTE, MINUTE, 0];

  function tick(element) {
    const starts = Date.parse(element.dataset.starts);
    const ends = Date.parse(element.dataset.ends);
    if (Number.isNaN(ends)) return;
    const left = ends - serverNow(element);
    const whole = Math.max(1, ends - starts);
    const digits = element.querySelector("[data-figure]");
    const words = element.querySelector("[data-words]");
    const rest = element.querySelector("[data-rest]");
    const over = left <= 0;

    if (digits) {
      const text = over ? "0:00" : figure(left);
      if (digits.textContent !== text) digits.textContent = text;
    }
    if (words) {
      const text = over ? "ended" : `${inWords(left)} left`;
      if (words.textContent !== text) words.textContent = text;
    }
    if (rest && starts) {
      const passed = Math.min(1, Math.max(0, 1 - left / whole));
      rest.setAttribute("x", String(passed * 1000));
      rest.setAttribute("width", String((1 - passed) * 1000));
    }
    element.classList.toggle("is-low", !over && left <= whole / 10);
    element.classList.toggle("is-over", over);

    const before = lastSaid.has(element) ? lastSaid.get(element) : left;
    lastSaid.set(element, left);
    if (element.dataset.name) {
      const crossed = MOMENTS.find((moment) => before > moment && left <= moment);
      if (crossed === 0) {
        say(`Your access to ${element.dataset.name} has ended.`);
        element.dispatchEvent(new CustomEvent("keyturn:over", { bubbles: true }));
      } else if (crossed) {
        say(`${inWords(crossed)} left on ${element.dataset.name}.`);
      }
    }
  }

  function tickAll() {
    all("[data-ends]").forEach(tick);
  }

  // ── Times ─────────────────────────────────────────────────────────────────────────────────
  // The server writes the exact ones, in the reader's own zone; only the relative ones move.
  const UNITS = [
    ["day", 86_400_000],
    ["hour", 3_600_000],
    ["minute", MINUTE],
  ];

  function ago(distance) {
    const size = Math.abs(distance);
    if (size < MINUTE) return distance > 0 ? "in less than a minute" : "just now";
    const [noun, ms] = UNITS.find((unit) => size >= unit[1]);
    const words = count(Math.floor(size / ms), noun);
    return distance > 0 ? `in ${words}` : `${words} ago`;
  }

  function tellTimes() {
    all("time[data-time]").forEach((element) => {
      const shown = element.querySelector("[data-shown]");
      const text = ago(Date.parse(element.dateTime) - serverNow(element));
      if (shown && shown.textContent !== text) shown.textContent = text;
    });
  }

  // ── Copying ───────────────────────────────────────────────────────────────────────────────
  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    if (!source) return;
    const text = source.textContent.trim();
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // No clipboard without a secure context: select it, so that the reader's own keys copy it.
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      copied = document.execCommand("copy");
    }
    const label = button.querySelector("[data-label]") || button;
    const was = button.dataset.was || label.textContent;
    button.dataset.was = was;
    label.textContent = copied ? "Copied" : "Press Ctrl+C";
    say(copied ? `${button.dataset.what || "Text"} copied.` : "Selected. Press Control C to copy.");
    window.setTimeout(() => {
      label.textContent = was;
    }, 2000);
  }

  // ── Saving ────────────────────────────────────────────────────────────────────────────────
  // From memory, so that what is saved is in no address and in no list of downloads.
  function save(button) {
    const source = document.getElementById(button.dataset.save);
    if (!source) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([source.textContent], { type: "application/x-pem-file" }));
    link.download = button.dataset.file;
    link.click();
    URL.revokeObjectURL(link.href);
    say(`${button.dataset.file} saved.`);
  }

  // ── Tabs ──────────────────────────────────────────────────────────────────────────────────
  function selectTab(tab, focus) {
    all("[role=tab]", tab.closest("[role=tablist]")).forEach((other) => {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      const panel = document.getElementById(other.getAttribute("aria-controls"));
      if (panel) {
        panel.hidden = !chosen;
        panel.dataset.ready = "";
      }
    });
    if (focus) tab.focus();
  }

  function tabKey(event, tab) {
    const tabs = all("[role=tab]", tab.closest("[role=tablist]"));
    const at = tabs.indexOf(tab);
    const to = {
      ArrowRight: (at + 1) % tabs.length,
      ArrowLeft: (at - 1 + tabs.length) % tabs.length,
      Home: 0,
      End: tabs.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    selectTab(tabs[to], true);
  }

  // ── Theme ─────────────────────────────────────────────────────────────────────────────────
  function showTheme() {
    const chosen = window.keyturnTheme ? window.keyturnTheme.get() : "system";
    all("[data-theme-choice]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === chosen));
    });
  }

  // ── Keys ──────────────────────────────────────────────────────────────────────────────────
  // Single keys can be turned off in the help dialog (WCAG 2.1.4): speech input types them.
  const KEYS_OFF = "keyturn-keys-off";

  function keysOff() {
    try {
      return window.localStorage.getItem(KEYS_OFF) === "1";
    } catch {
      return false;
    }
  }

  function typing(target) {
    return (
      target instanceof HTMLElement &&
      (target.isContentEditable ||
        target.matches("textarea, select, input:not([type=radio], [type=checkbox])"))
    );
  }

  function openDialog(id) {
    const dialog = document.getElementById(id);
    if (dialog && !dialog.open) dialog.showModal();
  }

  function moveInQueue(step) {
    const items = all("[data-queue-item]");
    if (!items.length) return;
    const at = items.findIndex((item) => item.getAttribute("aria-current") === "true");
    const next = items[Math.min(items.length - 1, Math.max(0, at + step))];
    if (!next) return;
    next.focus();
    if (next.getAttribute("aria-current") !== "true") next.click();
  }

  function markInQueue(item) {
    all("[data-queue-item]").forEach((other) => {
      if (other === item) other.setAttribute("aria-current", "true");
      else other.removeAttribute("aria-current");
    });
  }

  function onKey(event) {
    const target = event.target;
    if (target instanceof HTMLElement && target.getAttribute("role") === "tab") {
      tabKey(event, target);
      return;
    }
    if (event.key === "Escape") {
      const open = document.querySelector("details.menu[open]");
      if (open) {
        open.open = false;
        open.querySelector("summary").focus();
      } else if (typing(target) && target.closest("[data-queue]")) {
        target.blur();
      }
      return;
    }
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && target.matches("[data-comment]")) {
      event.preventDefault();
      send(target);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (typing(target) || document.querySelector("dialog[open]") || keysOff()) return;

    if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
      return;
    }
    if (event.key === "?") {
      event.preventDefault();
      openDialog("keys-dialog");
      return;
    }
    const act = going ? goTo(event.key) : caseKey(event);
    going = false;
    if (act) {
      event.preventDefault();
      act();
    }
  }

  // ── Approvals by keyboard ─────────────────────────────────────────────────────────────────
  let going = false;

  function goTo(key) {
    const link = document.querySelector(`[data-go="${CSS.escape(key)}"]`);
    return link && (() => link.click());
  }

  // Opens the fold that it's in, and goes there. Nothing is decided by a single key, so that a
  // slip of the finger isn't a verdict: Enter is.
  function reach(selector, sentence) {
    const element = document.querySelector(selector);
    if (!element) return null;
    return () => {
      const fold = element.closest("details");
      if (fold) fold.open = true;
      element.focus();
      if (sentence) say(sentence);
    };
  }

  function caseKey(event) {
    const inList = event.target instanceof Element && event.target.closest("#queue-list");
    const queue = document.querySelector("[data-queue]");
    if (queue) {
      if (event.key === "j" || (inList && event.key === "ArrowDown")) return () => moveInQueue(1);
      if (event.key === "k" || (inList && event.key === "ArrowUp")) return () => moveInQueue(-1);
      if (event.key === "x") return selectInQueue;
      if (event.key === "o") {
        const link = document.querySelector("[data-open]");
        return link && (() => link.click());
      }
      if (event.key === "A" && queue.querySelector("[name=requests]:checked")) {
        return reach("[data-bulk-approve]", "Approve selected. Press Enter to approve them.");
      }
      if (event.key === "D" && queue.querySelector("[name=requests]:checked")) {
        return reach("#bulk-reason");
      }
    }
    if (event.key === "g" && document.querySelector("[data-go]")) {
      return () => {
        going = true;
      };
    }
    if (!queue && !document.querySelector("[data-case]")) return null;
    const approve = document.querySelector(".less[open] [type=submit]") ? ".less [type=submit]" : "[data-approve]";
    const ways = {
      a: () => reach(approve, "Approve. Press Enter to approve."),
      l: () => reach("[data-less]"),
      d: () => reach("[data-reason]"),
      q: () => comment("q"),
      c: () => comment("c"),
      h: () => reach("[data-hand-over]"),
    };
    return Object.hasOwn(ways, event.key) ? ways[event.key]() : null;
  }

  // What is sent by Ctrl+Enter: a question after q, a comment after c.
  function comment(kind) {
    const go = reach("[data-comment]", kind === "q" ? "Question. Control Enter asks it." : "");
    return (
      go &&
      (() => {
        document.querySelector("[data-comment]").dataset.sends = kind;
        go();
      })
    );
  }

  function send(field) {
    const form = field.form;
    const button = form.querySelector(`[data-send="${field.dataset.sends || "c"}"]`) || form.querySelector("[data-send]");
    if (button) button.click();
  }

  function selectInQueue() {
    const chosen = document.querySelector("[data-queue-item][aria-current=true]");
    const tick = chosen && chosen.closest("li").querySelector("[name=requests]");
    if (!tick) return;
    tick.checked = !tick.checked;
    countSelected();
    say(tick.checked ? "Selected." : "No longer selected.");
  }

  function countSelected() {
    const words = document.querySelector("[data-bulk-count]");
    const number = all("[name=requests]:checked").length;
    if (words && number) words.textContent = `${number} selected`;
  }

  // ── Notifications ─────────────────────────────────────────────────────────────────────────
  // Whoever follows one has read it. The page that it leads to is fetched meanwhile, so the form
  // goes by itself; should it be lost, the notification merely stays unread.
  function markRead(id) {
    const form = document.getElementById(id);
    if (!form) return;
    const body = new URLSearchParams(new FormData(form));
    window
      .fetch(form.action, { method: "POST", body, keepalive: true, redirect: "manual" })
      .catch(() => {});
  }

  // ── Clicks ────────────────────────────────────────────────────────────────────────────────
  function onClick(event) {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    const open = document.querySelector("details.menu[open]");
    if (open && !open.contains(target)) open.open = false;

    const button = target.closest("button, a");
    if (!button) return;
    if (button.dataset.copy) copy(button);
    else if (button.dataset.save) save(button);
    else if (button.getAttribute("role") === "tab") selectTab(button, false);
    else if (button.dataset.themeChoice) {
      window.keyturnTheme.set(button.dataset.themeChoice);
      showTheme();
    } else if (button.dataset.dialogOpen) openDialog(button.dataset.dialogOpen);
    else if (button.hasAttribute("data-dialog-close")) button.closest("dialog").close();
    else if (button.hasAttribute("data-queue-item")) markInQueue(button);
    else if (button.dataset.fillUser) {
      const form = document.getElementById("sign-in");
      form.elements.namedItem("username").value = button.dataset.fillUser;
      form.elements.namedItem("password").value = button.dataset.fillPassword;
      form.querySelector("[type=submit]").focus();
      say("Filled in. Press Enter to sign in.");
    } else if (button.dataset.reads) markRead(button.dataset.reads);
    else if (button.hasAttribute("data-print")) window.print();
  }

  // ── Forms: once is enough ─────────────────────────────────────────────────────────────────
  function onSubmit(event) {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || form.method === "get" || form.method === "dialog") {
      return;
    }
    if (form.dataset.sent) {
      event.preventDefault();
      event.stopImmediatePropagation();
      return;
    }
    form.dataset.sent = "1";
    all("[type=submit]", form).forEach((button) => button.setAttribute("aria-disabled", "true"));
  }

  function freeForms(root) {
    all("form[data-sent]", root).forEach((form) => {
      delete form.dataset.sent;
      all("[type=submit]", form).forEach((button) => button.removeAttribute("aria-disabled"));
    });
  }

  // ── What htmx leaves to us ────────────────────────────────────────────────────────────────
  function trouble(sentence) {
    const region = document.getElementById("messages");
    if (!region) return;
    const notice = document.createElement("div");
    notice.className = "notice notice-bad";
    const icon = region.dataset.icon;
    notice.innerHTML = '<svg class="icon" aria-hidden="true"><use></use></svg><p></p>';
    notice.querySelector("use").setAttribute("href", icon);
    notice.querySelector("p").textContent = sentence;
    region.replaceChildren(notice);
    notice.scrollIntoView({ block: "nearest", behavior: reducedMotion.matches ? "auto" : "smooth" });
  }

  function ready(root) {
    tickAll();
    tellTimes();
    showTheme();
    countSelected();
    all("[role=tablist]", root).forEach((list) => {
      const chosen = list.querySelector("[aria-selected=true]") || list.querySelector("[role=tab]");
      if (chosen) selectTab(chosen, false);
    });
    const off = document.getElementById("keys-off");
    if (off) off.checked = !keysOff();
    // Once: what comes in later must not pull the reader back.
    const first = root.querySelector("[data-focus]");
    if (first) {
      first.removeAttribute("data-focus");
      first.focus();
    }
  }

  document.addEventListener("keydown", onKey);
  document.addEventListener("click", onClick);
  document.addEventListener("submit", onSubmit, true);
  document.addEventListener("change", (event) => {
    if (event.target.name === "requests") countSelected();
    if (event.target.id !== "keys-off") return;
    try {
      if (event.target.checked) window.localStorage.removeItem(KEYS_OFF);
      else window.localStorage.setItem(KEYS_OFF, "1");
    } catch {
      // Without storage the keys stay as they are.
    }
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    ready(event.target);
    // On a narrow screen the detail is below the queue, out of sight.
    if (event.target.id === "detail" && window.innerWidth < 992) {
      event.target.scrollIntoView({ behavior: reducedMotion.matches ? "auto" : "smooth" });
    }
  });
  document.addEventListener("htmx:afterRequest", () => freeForms(document));
  document.addEventListener("htmx:configRequest", (event) => {
    // The queue asks for itself anew with the request that is open now, not the first one shown.
    if (event.target.id === "queue-list") {
      event.detail.path = window.location.pathname + window.location.search;
      const shown = document.getElementById("detail");
      event.detail.parameters.shown = (shown && shown.dataset.request) || "";
    }
  });
  document.addEventListener("htmx:sendError", () =>
    trouble("Keyturn can’t be reached just now. Check the connection, then reload to see where things stand."),
  );
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status >= 500) {
      trouble("Keyturn could not finish that. Reload the page to see where it stands, then try again.");
    }
  });
  window.addEventListener("pageshow", () => freeForms(document));
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      tickAll();
      tellTimes();
    }
  });

  ready(document);
  window.setInterval(tickAll, 1000);
  window.setInterval(tellTimes, 20_000);
})();
