// What HTML alone cannot do: the theme, two keys, and pages that follow the event stream.
(() => {
  "use strict";
  const root = document.documentElement;
  const themes = ["system", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("theme") || "system"; } catch { return "system"; } };
  const show = (theme) => { if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme; };
  show(stored());

  // MLflow's client prints addresses of that project's pages: each leads to the page of the same thing here.
  const printed = [
    [/^#\/experiments\/\d+\/runs\/([0-9a-f]{32})/, "/runs/$1"],
    [/^#\/experiments\/\d+\/models\/(m-[0-9a-f]{32})/, "/logged/$1"],
    [/^#\/experiments\/\d+\/traces/, "/traces"],
    [/^#\/experiments/, "/experiments"],
    [/^#\/models\/([^/]+)\/versions\/(\d+)/, "/models/$1@$2"],
    [/^#\/models\/([^/]+)/, "/models/$1"],
  ];
  const follow = () => {
    const found = location.pathname === "/" && printed.find(([pattern]) => pattern.test(location.hash));
    if (found) location.replace(location.hash.match(found[0])[0].replace(...found));
  };
  follow();
  addEventListener("hashchange", follow);

  const rooms = { h: "/", u: "/u", d: "/data", r: "/runs", m: "/models", a: "/approvals", p: "/deployments", o: "/monitoring", e: "/events" };
  let pressed = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("search").focus();
    } else if (event.key === "g") {
      pressed = event.timeStamp;
    } else if (pressed && event.timeStamp - pressed < 1500 && rooms[event.key]) {
      location.assign(rooms[event.key]);
    }
  });

  // A form that somebody fills in must not be swapped away under the hand.
  const busy = (main) => main.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")
    || [...main.querySelectorAll("form")].some((form) => form.dataset.touched);
  document.addEventListener("input", (event) => { if (event.target.form) event.target.form.dataset.touched = "1"; });

  let last = 0, timer = 0;
  const refresh = () => {
    timer = 0;
    const main = document.querySelector("main[data-live]");
    if (!main || !window.htmx || document.hidden) { missed = Boolean(main); return; }
    if (busy(main)) { timer = setTimeout(refresh, 2000); return; }
    last = Date.now();
    htmx.trigger(main, "refresh");
  };
  // At most one look a second; the last change of a burst is never lost.
  let missed = false;
  const changed = () => { if (!timer) timer = setTimeout(refresh, Math.max(0, last + 1000 - Date.now())); };
  document.addEventListener("visibilitychange", () => { if (missed && !document.hidden) { missed = false; changed(); } });

  // What a run logs is no event of its own: while one is running, its pages look again every few seconds.
  setInterval(() => { if (document.querySelector("main[data-running]")) changed(); }, 3000);

  // A filter is completed word by word: what stands before the word under the hand goes in front of every offer.
  document.addEventListener("input", (event) => {
    const before = event.target.list ? event.target.value.replace(/\S*$/, "") : null;
    if (before !== null) for (const option of event.target.list.options) option.value = before + (option.dataset.word ?? "");
  });

  let open = [];
  document.addEventListener("htmx:beforeSwap", () => { open = [...document.querySelectorAll("main details[open][id]")].map((item) => item.id); });
  document.addEventListener("htmx:afterSwap", () => {
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    document.title = `${document.querySelector("h1").textContent} · Mainspring`;
  });

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = () => { button.textContent = `Theme: ${stored()}`; };
    button.hidden = false;
    name();
    button.addEventListener("click", () => {
      const next = themes[(themes.indexOf(stored()) + 1) % themes.length];
      try { localStorage.setItem("theme", next); } catch { /* private windows keep nothing */ }
      show(next);
      name();
    });

    const stream = document.getElementById("stream");
    const say = (state, words) => { stream.dataset.state = state; stream.querySelector("span").textContent = words; };
    const source = new EventSource("/api/events/stream");
    let lost = false;
    source.addEventListener("open", () => { say("live", "live"); if (lost) changed(); lost = false; });
    source.addEventListener("error", () => { lost = true; say("lost", "connection lost, trying again"); });
    source.addEventListener("change", changed);
    addEventListener("pagehide", () => source.close());
  });
})();
