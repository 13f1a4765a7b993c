// Loaded before the first paint, and blocking on purpose: a page that flashes white in a dark room
// is worse than 300 bytes. It is a file because the Content-Security-Policy allows no inline script.
(function () {
  "use strict";
  var chosen = null;
  try {
    chosen = window.localStorage.getItem("keyturn-theme");
  } catch {
    // Storage may be refused; the system's preference is then what counts.
  }
  var root = document.documentElement;
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function apply() {
    var theme = chosen === "light" || chosen === "dark" ? chosen : dark.matches ? "dark" : "light";
    root.setAttribute("data-bs-theme", theme);
  }
  apply();
  root.classList.add("js");
  dark.addEventListener("change", apply);
  window.keyturnTheme = {
    get: function () {
      return chosen || "system";
    },
    set: function (value) {
      chosen = value === "system" ? null : value;
      try {
        if (chosen) window.localStorage.setItem("keyturn-theme", chosen);
        else window.localStorage.removeItem("keyturn-theme");
      } catch {
        // The choice then lasts as long as the page.
      }
      apply();
    },
  };
})();
