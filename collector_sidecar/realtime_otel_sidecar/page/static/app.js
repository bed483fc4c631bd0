// What is shown, and what the reader does with it.

const given = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const RENEW_MS = 1000;
const SCROLLED = [".tree", ".details"]; // what has a view of its own, which stays where it is when all is drawn again

const shown = {
  list: given.conversations, // what is known of all: whole conversations, or in a live page their summaries
  conversation: null,
  selected: null,
  folded: new Set(),
  zoom: null, // null: as it begins
  connected: true,
};

const actions = {
  select(id, from) {
    shown.selected = id;
    markSelected(from);
  },
  fold(id) {
    shown.folded[shown.folded.has(id) ? "delete" : "add"](id);
    draw();
    focusAgain(`[data-row="${id}"]:not([data-event])`);
  },
  zoom(factor, x) {
    const scroller = page.querySelector(".scroller");
    const before = current();
    const box = scroller.getBoundingClientRect();
    const ticks = page.querySelector(".ticks");
    const pointer = (x === undefined ? box.left + box.width / 2 : x) - ticks.getBoundingClientRect().left;
    const part = pointer / ticks.clientWidth;
    shown.zoom = Math.min(Math.max(before * factor, 1), MOST_ZOOM);
    page.querySelector(".track").style.setProperty("--zoom", String(shown.zoom));
    fitToWidth(page, shown.conversation);
    scroller.scrollLeft += part * ticks.clientWidth - pointer;
  },
  fit() {
    shown.zoom = 1;
    page.querySelector(".track").style.setProperty("--zoom", "1");
    fitToWidth(page, shown.conversation);
  },
};

const current = () => shown.zoom || firstZoom(shown.conversation);
const spanOf = (id) => (id && shown.conversation ? shown.conversation.spans.find((span) => span.id === id) : undefined);

// --- Drawing ----------------------------------------------------------------------------------------------------------

function draw() {
  const left = page.querySelector(".scroller")?.scrollLeft || 0;
  const tops = SCROLLED.map((selector) => page.querySelector(selector)?.scrollTop || 0);
  const active = focused();
  const { conversation } = shown;
  const parts = conversation ? conversationView(conversation) : listView(shown.list, given.live);
  const lost =
    given.live && !shown.connected
      ? el("p", { class: "card notice", role: "status" }, "The server does not answer. This is what it said last.")
      : "";
  page.replaceChildren(el("main", { class: conversation ? "one" : "all" }, [lost, parts].flat().filter(Boolean)));
  if (!conversation) return;
  fitToWidth(page, conversation);
  markSelected(null);
  page.querySelector(".scroller").scrollLeft = left;
  SCROLLED.forEach((selector, at) => {
    page.querySelector(selector).scrollTop = tops[at];
  });
  if (active) focusAgain(active);
}

function conversationView(conversation) {
  document.title = `${conversation.service || "Conversation"} · ${clock(conversation.started)}`;
  return [
    ...headView(conversation, given.live || given.conversations.length > 1),
    timelineView(conversation, current(), actions),
    el(
      "div",
      { class: "below" },
      treeView(conversation, shown.selected, shown.folded, actions),
      el("div", { class: "side" }),
    ),
  ];
}

/** Show which span is chosen; `from`: where it was chosen, so that what the reader looks at stays where it is. */
function markSelected(from) {
  const span = spanOf(shown.selected);
  for (const each of page.querySelectorAll(".chosen")) mark(each, false);
  for (const row of page.querySelectorAll('[aria-selected="true"]')) row.setAttribute("aria-selected", "false");
  if (span) {
    for (const each of page.querySelectorAll(`[data-span="${span.id}"], [data-shadow="${span.id}"]`)) mark(each, true);
    selectRow(page.querySelector(`[data-row="${span.id}"]:not([data-event])`), from);
  }
  oneTabStop(
    page.querySelectorAll('[data-span][tabindex="0"]'),
    span && page.querySelector(`[data-span="${span.id}"]`),
  );
  page.querySelector(".side").replaceChildren(detailsView(shown.conversation, span, actions));
  if (!span || !from) return;
  if (from !== "timeline")
    page.querySelector(`.bar-of[data-span="${span.id}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (window.matchMedia("(max-width: 60rem)").matches)
    page.querySelector(".details").scrollIntoView({ block: "start" });
}

function mark(each, chosen) {
  each.classList.toggle("chosen", chosen);
  if (each.hasAttribute("aria-pressed")) each.setAttribute("aria-pressed", String(chosen));
}

function selectRow(row, from) {
  if (!row) return; // it is folded away
  row.setAttribute("aria-selected", "true");
  oneTabStop(page.querySelectorAll('[role="treeitem"][tabindex="0"]'), row);
  if (from && from !== "tree") reveal(row);
}

/** Bring a row into the tree's own view; the rest of the page stays where it is. */
function reveal(row) {
  const tree = row.parentElement;
  const isSeen =
    row.offsetTop >= tree.scrollTop && row.offsetTop + row.offsetHeight <= tree.scrollTop + tree.clientHeight;
  if (!isSeen) tree.scrollTop = row.offsetTop - tree.clientHeight / 3;
}

/** Of the timeline's bars, and of the tree's rows, Tab reaches one; arrows reach the others. */
function oneTabStop(before, wanted) {
  const one = wanted || before[0] || page.querySelector("[data-span]");
  for (const each of before) if (each !== one) each.setAttribute("tabindex", "-1");
  one?.setAttribute("tabindex", "0");
}

// --- The keyboard, and the pointer --------------------------------------------------------------------------------------

function focused() {
  const { dataset } = document.activeElement || {};
  if (dataset?.span) return `[data-span="${dataset.span}"]`;
  if (dataset?.row) return `[data-row="${dataset.row}"]${dataset.event === undefined ? ":not([data-event])" : ""}`;
  return document.activeElement?.getAttribute("aria-label")
    ? `[aria-label="${CSS.escape(document.activeElement.getAttribute("aria-label"))}"]`
    : null;
}

const focusAgain = (selector) => page.querySelector(selector)?.focus({ preventScroll: true });

page.addEventListener("click", (event) => {
  const target = event.target.closest("[data-span], [data-shadow]");
  if (target) actions.select(target.dataset.span || target.dataset.shadow, "timeline");
});

document.addEventListener("keydown", (event) => {
  if (!shown.conversation || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "+" || event.key === "=") actions.zoom(1.6);
  else if (event.key === "-") actions.zoom(1 / 1.6);
  else if (event.key === "0") actions.fit();
  else if (event.key === "Escape" && shown.selected) actions.select(null, "key");
  else if (document.activeElement?.dataset.span && event.key.startsWith("Arrow")) moveInTimeline(event);
});

/** Left and right: in time, within the lane. Up and down: to what is nearest in time in the next lane. */
function moveInTimeline(event) {
  const here = document.activeElement;
  const lanes = [...page.querySelectorAll(".timeline .lane")]
    .map((each) => [...each.querySelectorAll("[data-span]")].sort((a, b) => leftOf(a) - leftOf(b)))
    .filter((bars) => bars.length);
  const lane = lanes.findIndex((bars) => bars.includes(here));
  const at = lanes[lane].indexOf(here);
  let next = null;
  if (event.key === "ArrowRight") next = lanes[lane][at + 1];
  else if (event.key === "ArrowLeft") next = lanes[lane][at - 1];
  else next = nearest(lanes[lane + (event.key === "ArrowDown" ? 1 : -1)], leftOf(here));
  event.preventDefault();
  if (!next) return;
  here.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest", inline: "nearest" });
}

const leftOf = (bar) => parseFloat(bar.style.left);
const nearest = (bars, left) =>
  bars?.reduce((best, bar) => (Math.abs(leftOf(bar) - left) < Math.abs(leftOf(best) - left) ? bar : best));

new ResizeObserver(() => {
  if (shown.conversation) fitToWidth(page, shown.conversation);
}).observe(page);

// --- Which conversation -------------------------------------------------------------------------------------------------

async function route() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (wanted !== shown.conversation?.trace)
    Object.assign(shown, { conversation: null, selected: null, zoom: null, folded: new Set() });
  if (given.live) await renew();
  else {
    const only = given.conversations.length === 1 ? given.conversations[0] : null;
    shown.conversation = given.conversations.find((each) => each.trace === wanted) || only;
    draw();
  }
}

/** Ask the server that this page came from; what has not changed is not drawn again. */
async function renew() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  try {
    const answer = await fetch(wanted ? `conversations/${encodeURIComponent(wanted)}` : "conversations", {
      cache: "no-store",
    });
    if (answer.status === 404 && wanted) {
      location.hash = "";
      return;
    }
    if (!answer.ok) throw new Error(answer.statusText);
    const text = await answer.text();
    if (wanted !== decodeURIComponent(location.hash.slice(1))) return; // the reader has gone on meanwhile
    const same = text === shown.text && shown.connected;
    Object.assign(shown, { connected: true, text, [wanted ? "conversation" : "list"]: JSON.parse(text) });
    if (!same) draw();
  } catch {
    if (shown.connected) {
      shown.connected = false;
      draw();
    }
  }
}

/** Again and again; a conversation that takes long to draw is drawn less often. */
async function keepRenewing() {
  const began = performance.now();
  if (!document.hidden) await renew();
  setTimeout(keepRenewing, Math.max(RENEW_MS, (performance.now() - began) * 5));
}

addEventListener("hashchange", route);
route();
if (given.live) setTimeout(keepRenewing, RENEW_MS);
