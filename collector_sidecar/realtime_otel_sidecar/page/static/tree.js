// Everything that happened, in its order: spans under their parents, and in their place what was logged.

const MANY = 1000; // rows, beyond which those out of sight are not laid out

function treeView(conversation, selected, folded, actions) {
  const rows = treeRows(conversation, folded);
  const tree = el("div", { class: rows.length > MANY ? "tree many" : "tree", role: "tree", "aria-label": "Spans" });
  for (const row of rows) tree.append(treeRow(row, row.span.id === selected && !row.event, conversation, actions));
  if (!tree.querySelector('[tabindex="0"]') && tree.firstChild) tree.firstChild.setAttribute("tabindex", "0");
  tree.addEventListener("keydown", (event) => treeKeys(event, tree, actions));
  return el(
    "section",
    { class: "card spans", "aria-label": "Spans" },
    el(
      "div",
      { class: "bar" },
      el("h2", {}, "Spans"),
      el("p", { class: "muted" }, plural(conversation.spans.length, "span")),
    ),
    tree,
  );
}

/** Rows as they stand: {span, event, level, parent}. */
function treeRows(conversation, folded) {
  const below = new Map();
  const known = new Set(conversation.spans.map((span) => span.id));
  const placed = new Set();
  for (const span of conversation.spans) {
    const parent = known.has(span.parent) && placed.has(span.parent) ? span.parent : "";
    placed.add(span.id);
    if (!below.has(parent)) below.set(parent, []);
    below.get(parent).push(span);
  }
  const rows = [];
  const waiting = (below.get("") || []).map((span) => ({ span, level: 1 })).reverse();
  while (waiting.length) {
    const row = waiting.pop();
    rows.push(row);
    if (row.event) continue;
    const inside = [
      ...(below.get(row.span.id) || []).map((span) => ({ span, level: row.level + 1, at: span.start })),
      ...row.span.events.map((event) => ({ span: row.span, event, level: row.level + 1, at: event.at })),
    ].sort((a, b) => a.at - b.at);
    row.has = inside.length > 0;
    row.open = !folded.has(row.span.id);
    if (row.open) waiting.push(...inside.reverse());
  }
  return rows;
}

function treeRow({ span, event, level, has, open }, selected, conversation, actions) {
  const row = el("div", {
    role: "treeitem",
    class: `row ${event ? "event" : span.role}${span.error && !event ? " error" : ""}`,
    tabindex: selected ? "0" : "-1",
    "aria-level": level,
    "aria-expanded": has ? String(open) : undefined,
    "aria-selected": String(selected),
    "data-row": span.id,
    "data-event": event ? "" : undefined,
    style: { "--level": String(Math.min(level, 12)) },
  });
  const fold = el("span", { class: "fold", "aria-hidden": "true" }, has ? (open ? "▾" : "▸") : "");
  if (has)
    fold.addEventListener("click", (click) => {
      click.stopPropagation();
      actions.fold(span.id);
    });
  row.append(
    fold,
    el("i", { class: `dot ${event ? severity(event) : ""}`, "aria-hidden": "true" }),
    ...(event ? eventCells(event) : spanCells(span)),
  );
  row.addEventListener("click", () => actions.select(span.id, "tree"));
  return row;
}

function spanCells(span) {
  const notes = [];
  if (span.open) notes.push(el("span", { class: "badge live" }, "open"));
  else if (span.error) notes.push(el("span", { class: "badge bad" }, span.error));
  else if (span.reason && REASONS[span.reason] !== "good")
    notes.push(el("span", { class: `badge ${REASONS[span.reason] || ""}` }, reasonWords(span.reason)));
  if (span.cut) notes.push(el("span", { class: "badge warn" }, "barge-in"));
  const what =
    span.role === "tool" && span.attributes["gen_ai.tool.call.arguments"]
      ? span.attributes["gen_ai.tool.call.arguments"]
      : span.text;
  return [
    el(
      "span",
      { class: "what" },
      el("b", {}, title(span)),
      what ? " " : "",
      what ? el("span", { class: span.role === "tool" ? "code" : "said" }, what) : "",
      " ",
      notes,
    ),
    el("span", { class: "time" }, offset(span.start, 2)),
    el("span", { class: "time long" }, span.open ? "…" : lasting(span.end - span.start)),
  ];
}

function eventCells(event) {
  const what = event.log
    ? [el("span", { class: "logger" }, event.log.severity), " ", event.log.message]
    : [eventTitle(event), " ", eventWords(event)];
  return [
    el("span", { class: "what" }, what),
    el("span", { class: "time" }, offset(event.at, 2)),
    el("span", { class: "time long" }, event.gap ? lasting(event.gap.end - event.at) : ""),
  ];
}

/** As the ARIA practices have it for trees. */
function treeKeys(event, tree, actions) {
  const rows = [...tree.querySelectorAll('[role="treeitem"]')];
  const at = rows.indexOf(document.activeElement);
  if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  const row = rows[at];
  const level = Number(row.getAttribute("aria-level"));
  const expanded = row.getAttribute("aria-expanded");
  const moves = {
    ArrowDown: () => focusRow(rows, Math.min(at + 1, rows.length - 1)),
    ArrowUp: () => focusRow(rows, Math.max(at - 1, 0)),
    Home: () => focusRow(rows, 0),
    End: () => focusRow(rows, rows.length - 1),
    ArrowRight: () => (expanded === "false" ? actions.fold(row.dataset.row) : expanded && focusRow(rows, at + 1)),
    ArrowLeft: () => {
      if (expanded === "true") actions.fold(row.dataset.row);
      else
        focusRow(
          rows,
          rows.findLastIndex((other, index) => index < at && Number(other.getAttribute("aria-level")) < level),
        );
    },
    Enter: () => actions.select(row.dataset.row, "tree"),
    " ": () => actions.select(row.dataset.row, "tree"),
  };
  if (!(event.key in moves)) return;
  event.preventDefault();
  moves[event.key]();
}

function focusRow(rows, at) {
  if (at < 0) return;
  for (const row of rows) row.setAttribute("tabindex", "-1");
  rows[at].setAttribute("tabindex", "0");
  rows[at].focus();
}
