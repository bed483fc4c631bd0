// All that is known of one span.

function detailsView(conversation, span, actions) {
  const panel = el("section", { class: "card details", "aria-label": "Details", tabindex: "-1" });
  if (!span) {
    panel.append(
      el(
        "p",
        { class: "muted hint" },
        "Choose a span, in the timeline or in the list, to see what is known of it. Arrow keys move, Enter chooses, + and − zoom.",
      ),
    );
    return panel;
  }
  panel.append(
    el(
      "div",
      { class: "bar" },
      el("h2", {}, el("i", { class: `key ${span.role}`, "aria-hidden": "true" }), title(span)),
      chips(span),
      el(
        "button",
        {
          type: "button",
          class: "tool-button close",
          "aria-label": "Close the details",
          onclick: () => actions.select(null, "details"),
        },
        "✕",
      ),
    ),
    span.text ? el("blockquote", {}, span.text) : "",
    facts(conversation, span),
    block("Arguments", span.attributes["gen_ai.tool.call.arguments"]),
    block("Result", span.attributes["gen_ai.tool.call.result"]),
    links(conversation, span, actions),
    events(span),
    table("Attributes", Object.entries(span.attributes), true),
    table(
      "Ids",
      [
        ["trace", conversation.trace],
        ["span", span.id],
        ["parent", span.parent],
      ].filter(([, value]) => value),
      true,
    ),
    table("Resource", Object.entries(conversation.resources[span.resource] || {}), false),
  );
  return panel;
}

function chips(span) {
  return el(
    "span",
    { class: "chips" },
    span.open ? el("span", { class: "badge live" }, "open") : "",
    span.reason ? el("span", { class: `badge ${REASONS[span.reason] || ""}` }, reasonWords(span.reason)) : "",
    span.error ? el("span", { class: "badge bad" }, `error: ${span.error}`) : "",
    span.dropped ? el("span", { class: "badge warn" }, `${span.dropped} left out`) : "",
  );
}

/** What is worth a line of its own; exact values are in the table below. */
function facts(conversation, span) {
  const rows = [
    [
      "Starts",
      `${offset(span.start)}${span.inferred[0] ? " (inferred)" : ""}`,
      clock(conversation.started + span.start, {
        year: undefined,
        month: undefined,
        day: undefined,
        fractionalSecondDigits: 3,
      }),
    ],
    span.open
      ? ["Open", `for ${lasting(span.end - span.start)} so far`]
      : ["Lasts", lasting(span.end - span.start), `until ${offset(span.end)}${span.inferred[1] ? " (inferred)" : ""}`],
    span.turn === null || span.turn === undefined ? null : ["Turn", span.turn],
    span.wait ? ["Response time", lasting(span.wait.end - span.wait.start), span.wait.what] : null,
    span.audio
      ? ["Audio", cutWords(span), span.audio.known ? "as its playback tells" : "reckoned: played as soon as it came"]
      : null,
    span.cut ? ["Interrupts", interruption(span.cut)] : null,
    span.run
      ? ["Function", `ran ${lasting(span.run.end - span.run.start)}`, `after ${lasting(span.run.start - span.start)}`]
      : null,
    tokens(span),
  ].filter(Boolean);
  return el(
    "dl",
    { class: "facts-table" },
    rows.flatMap(([name, value, note]) => [
      el("dt", {}, name),
      el("dd", {}, String(value), note ? el("small", {}, note) : null),
    ]),
  );
}

function interruption(cut) {
  const said =
    {
      before_audio: "before its audio",
      generating: "while it was generated",
      generated: "when it was generated, and still played",
    }[cut.phase] || "an answer";
  if (cut.heard === null || cut.heard === undefined) return said;
  if (cut.generated === null || cut.generated === undefined) return `${said}; heard ${tenths(cut.heard)}`;
  return `${said}; heard ${(cut.heard / 1000).toFixed(1)} of ${tenths(cut.generated)}`;
}

function tokens(span) {
  const [given, made] = [span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]];
  if (given === undefined && made === undefined) return null;
  const cached = span.attributes["gen_ai.usage.cache_read.input_tokens"];
  return [
    "Tokens",
    `${(given || 0).toLocaleString("en")} in, ${(made || 0).toLocaleString("en")} out`,
    cached ? `${cached.toLocaleString("en")} of the input cached` : "",
  ];
}

function block(name, text) {
  if (text === undefined || text === null || text === "") return "";
  return el(
    "div",
    { class: "block" },
    el("h3", {}, name),
    el("pre", { tabindex: "0", role: "region", "aria-label": name }, readable(text)),
  );
}

/** JSON with line breaks; any other value as text. */
function readable(value) {
  if (typeof value !== "string") return typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
  if (!/^\s*[[{]/.test(value)) return value;
  try {
    return JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    return value;
  }
}

const plain = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

function links(conversation, span, actions) {
  const back = conversation.spans.flatMap((other) =>
    other.links
      .filter((link) => link.span === span.id && link.trace === conversation.trace)
      .map((link) => [other, link]),
  );
  if (!span.links.length && !back.length) return "";
  const called = (id) => conversation.spans.find((other) => other.id === id);
  const target = (other, id) =>
    other
      ? el(
          "button",
          { type: "button", class: "link", onclick: () => actions.select(other.id, "details") },
          `${title(other)} at ${offset(other.start, 2)}`,
        )
      : el("code", {}, id);
  return el(
    "div",
    { class: "block" },
    el("h3", {}, "Links"),
    el(
      "ul",
      { class: "links" },
      span.links.map((link) =>
        el(
          "li",
          {},
          `${LINKS[link.kind] || link.kind || "names"} `,
          link.trace === conversation.trace
            ? target(called(link.span), link.span)
            : el("code", {}, `${link.span} of trace ${link.trace}`),
          link.attributes["openai.realtime.link.inference"]
            ? el("small", {}, ` by ${link.attributes["openai.realtime.link.inference"]}`)
            : "",
        ),
      ),
      back.map(([other, link]) =>
        el("li", {}, "← ", target(other, other.id), ` ${LINKS[link.kind] || link.kind || "names"} it`),
      ),
    ),
  );
}

function events(span) {
  if (!span.events.length) return "";
  return el(
    "div",
    { class: "block" },
    el("h3", {}, "Events and logs"),
    el(
      "ol",
      { class: "events" },
      span.events.map((event) =>
        el(
          "li",
          { class: severity(event) },
          el("span", { class: "time" }, offset(event.at)),
          " ",
          event.log
            ? [
                el("b", {}, event.log.severity),
                ` ${event.log.logger} `,
                el("span", { class: "said" }, event.log.message),
              ]
            : el("b", {}, eventTitle(event)),
          event.log ? "" : table("", Object.entries(event.attributes), false),
        ),
      ),
    ),
  );
}

/** A name that may be broken after its dots and before its underscores, and is still copied as it is. */
const breakable = (name) => name.split(/(?<=\.)|(?=_)/).flatMap((part, at) => (at ? [el("wbr"), part] : [part]));

function table(name, entries, open) {
  if (!entries.length) return "";
  const rows = el(
    "table",
    { class: "attributes" },
    el(
      "tbody",
      {},
      entries
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, breakable(key)), el("td", {}, plain(value)))),
    ),
  );
  if (!name) return rows;
  return el("details", { class: "block", open }, el("summary", {}, name), rows);
}
