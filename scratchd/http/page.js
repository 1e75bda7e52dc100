"use strict";
// Asks for the page itself every few seconds and takes over what has changed, so that there is one rendering, and
// focus, selection and scrolling stay. Parsed as a document of its own: no script in it runs, and no HTML is made of text.
(() => {
  const EVERY_MS = 5000;
  const byId = (id) => document.getElementById(id);
  const lost = byId("lost"), pause = byId("pause");
  let paused = false, timer = 0, asking = null;

  const attributes = (to, from) => {
    for (const { name } of [...to.attributes]) if (!from.hasAttribute(name)) to.removeAttribute(name);
    for (const { name, value } of from.attributes) if (to.getAttribute(name) !== value) to.setAttribute(name, value);
  };
  const take = (to, from) => {
    if (to.isEqualNode(from) || to.hasAttribute("data-keep")) return;
    attributes(to, from);
    const old = [...to.childNodes], fresh = [...from.childNodes];
    if (old.length !== fresh.length || old.some((node, at) => node.nodeName !== fresh[at].nodeName)) {
      to.replaceChildren(...fresh.map((node) => document.importNode(node, true)));
      return;
    }
    old.forEach((node, at) => {
      if (node.nodeType === Node.ELEMENT_NODE) take(node, fresh[at]);
      else if (node.data !== fresh[at].data) node.data = fresh[at].data;
    });
  };
  const missed = () => {
    if (lost.textContent) return;
    lost.textContent = "No answer from scratchd. What stands below is old.";
    document.documentElement.classList.add("lost");
    document.title = "\u2715 No answer \u2013 scratchd";
  };
  const came = (page) => {
    if (page.documentElement.dataset.build !== document.documentElement.dataset.build) return location.reload();
    lost.textContent = "";
    document.documentElement.classList.remove("lost");
    for (const name of ["header", "main"]) take(document.querySelector(name), page.querySelector(name));
    if (byId("icon").href !== page.getElementById("icon").href) byId("icon").href = page.getElementById("icon").href;
    document.title = page.title;
  };
  const refresh = () => {
    clearTimeout(timer);
    if (asking) asking.abort();
    asking = new XMLHttpRequest();
    asking.open("GET", location.pathname + location.search);
    asking.responseType = "document";
    asking.timeout = 2 * EVERY_MS;
    asking.onload = () => (asking.status === 200 && asking.response?.getElementById("state") ? came(asking.response) : missed());
    asking.onerror = asking.ontimeout = missed;
    asking.onloadend = () => { asking = null; plan(); };
    asking.onabort = null;
    asking.send();
  };
  const plan = () => { clearTimeout(timer); if (!paused && !document.hidden) timer = setTimeout(refresh, EVERY_MS); };

  byId("refresh").hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (paused) clearTimeout(timer); else refresh();
  });
  document.addEventListener("visibilitychange", () => { if (!paused && !document.hidden) refresh(); });
  // The search works without this, by asking for another page; with it, while one types.
  document.addEventListener("input", (event) => {
    if (event.target.id !== "search") return;
    history.replaceState(null, "", "?" + new URLSearchParams(new FormData(event.target.form)));
    refresh();
  });
  plan();
})();
