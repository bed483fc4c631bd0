// All conversations, a line each.

const COLUMNS = [
  ["Started", "", (each) => clock(each.started, { year: undefined })],
  ["Service", "", (each) => each.service || "—"],
  ["State", "", state],
  ["Length", "number", (each) => lasting(each.length)],
  ["Turns", "number", (each) => each.counts.turns],
  ["Tools", "number", (each) => each.counts.tools],
  ["Response time", "number", (each) => (each.wait ? lasting(each.wait.median) : "—")],
  ["Interruptions", "number", (each) => each.counts.interruptions],
  ["Errors", "number", (each) => each.counts.errors],
  [
    "Tokens",
    "number",
    (each) => `${each.counts.input_tokens.toLocaleString("en")} → ${each.counts.output_tokens.toLocaleString("en")}`,
  ],
];

function listView(conversations, live) {
  const heading = el(
    "div",
    { class: "bar" },
    el("h1", {}, "Conversations"),
    el(
      "p",
      { class: "muted" },
      live ? "Renewed as spans settle. The newest first." : plural(conversations.length, "conversation"),
    ),
  );
  if (!conversations.length)
    return [heading, live ? invitation() : el("p", { class: "card empty" }, "There is no span in this file.")];
  const newest = [...conversations].sort((a, b) => b.started - a.started);
  const head = el(
    "tr",
    {},
    COLUMNS.map(([name, kind]) => el("th", { scope: "col", class: kind }, name)),
  );
  return [
    heading,
    el(
      "div",
      { class: "card scroll", tabindex: "0", role: "region", "aria-label": "Conversations" },
      el("table", { class: "list" }, el("thead", {}, head), el("tbody", {}, newest.map(line))),
    ),
  ];
}

function line(each) {
  const cells = COLUMNS.map(([name, kind, value], at) => {
    const bad = name === "Errors" && each.counts.errors > 0;
    const shown = value(each);
    return el(
      "td",
      { class: `${kind}${bad ? " bad" : ""}`, "data-label": name },
      at ? shown : el("a", { href: `#${each.trace}` }, shown),
    );
  });
  return el(
    "tr",
    {
      "data-id": each.trace,
      onclick: () => {
        location.hash = each.trace;
      },
    },
    cells,
  );
}

function state(each) {
  if (each.open) return el("span", { class: "badge live" }, "open");
  if (!each.reason) return el("span", { class: "badge" }, "in part");
  return el("span", { class: `badge ${each.failure ? "bad" : REASONS[each.reason] || ""}` }, reasonWords(each.reason));
}

/** What to do while there is nothing to see. */
function invitation() {
  return el(
    "div",
    { class: "card empty" },
    el("h2", {}, "Waiting for a conversation"),
    el("p", {}, "Start an agent that is observed with this in its environment:"),
    el("pre", { tabindex: "0" }, `export OTEL_EXPORTER_OTLP_ENDPOINT=${given.endpoint}`),
    el("p", {}, "One line in it is all that it needs:"),
    el("pre", { tabindex: "0" }, "realtime_otel.observe(session)  # before it is entered"),
  );
}
