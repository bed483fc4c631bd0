// Who spoke when: a lane each for the user, the agent, its tools, and what else happened.

const ROW = { user: 38, agent: 38, making: 10, tool: 26, other: 16 };
const GAP = 4;
const LEAST_SECOND = { wide: 9, narrow: 30 }; // pixels of a second at first: with less, turns would be slivers
const MOST_ZOOM = 400;
const LABEL_WIDTH = 26; // pixels below which a bar has no room for words

/** Rows so that nothing overlaps, each in the first one that is free; `under(span)`: the least row that it may have. */
function stacked(spans, { from = (span) => span.start, to = (span) => span.end, under = () => 0, room = 0 } = {}) {
  const free = [];
  const rows = new Map();
  for (const span of spans) {
    let row = under(span, rows);
    while (row < free.length && free[row] > from(span) + 1e-6) row += 1;
    while (free.length <= row) free.push(-Infinity);
    free[row] = to(span) + room;
    rows.set(span.id, row);
  }
  return { rows, count: free.length };
}

function timelineView(conversation, zoom, actions) {
  const whole = Math.max(conversation.shown * 1.01, 1);
  const at = (ms) => percent(Math.min(Math.max(ms / whole, 0), 1));
  const wide = (ms) => percent(Math.max(ms, 0) / whole);
  const place = (start, end) => ({ left: at(start), width: wide(end - start) });
  const parts = { conversation, whole, at, place };
  const lanes = [userLane(parts), waitLane(parts), agentLane(parts), toolLane(parts), eventLane(parts)].filter(Boolean);
  const track = el(
    "div",
    { class: "track", style: { "--zoom": String(zoom) } },
    el(
      "div",
      { class: "lane axis" },
      el("div", { class: "lane-name" }),
      el("div", { class: "bars ticks", "aria-hidden": "true" }),
    ),
    turnLane(parts),
    lanes,
    overlay(parts),
  );
  const scroller = el("div", { class: "scroller", tabindex: "-1" }, track);
  const view = el(
    "section",
    { class: "card timeline", "aria-label": "Timeline" },
    toolbar(conversation, actions),
    scroller,
  );
  scroller.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      actions.zoom(Math.exp(-event.deltaY / 300), event.clientX);
    },
    { passive: false },
  );
  follow(track, whole);
  return view;
}

function toolbar(conversation, actions) {
  const button = (text, label, act) =>
    el("button", { type: "button", class: "tool-button", "aria-label": label, title: label, onclick: act }, text);
  const has = (test) => conversation.spans.some(test);
  return el(
    "div",
    { class: "bar toolbar" },
    el("h2", {}, "Timeline"),
    el(
      "ul",
      { class: "legend", "aria-label": "Legend" },
      has((span) => span.role === "user") && legend("user", "User speaks"),
      has((span) => span.audio) && legend("agent", "Agent is heard"),
      has((span) => span.audio?.cut) && legend("cut", "User interrupts"),
      has((span) => span.audio && span.audio.end - span.audio.heard > 1) && legend("unheard", "Not heard"),
      has((span) => span.role === "agent") && legend("making", "Response is generated"),
      has((span) => span.role === "tool") && legend("tool", "Tool runs"),
      has((span) => span.inferred[0] || span.inferred[1]) && legend("inferred", "Inferred"),
      has((span) => span.events.some((event) => event.gap)) && legend("lost", "Records lost"),
    ),
    el(
      "div",
      { class: "buttons", role: "group", "aria-label": "Zoom" },
      button("−", "Zoom out", () => actions.zoom(1 / 1.6)),
      button("+", "Zoom in", () => actions.zoom(1.6)),
      button("Fit", "Show all of it", () => actions.fit()),
    ),
  );
}

const legend = (kind, text) => el("li", {}, el("i", { class: `key ${kind}`, "aria-hidden": "true" }), text);

function lane(kind, name, height, ...bars) {
  return el(
    "div",
    { class: `lane ${kind}`, role: "group", "aria-label": name || kind },
    el("div", { class: "lane-name", "aria-hidden": "true" }, name),
    el("div", { class: "bars", style: { height: `${height}px` } }, bars),
  );
}

/** What stands for a span: a button, of which one in the timeline can be reached by Tab, and the others by arrows. */
function bar(span, kind, style, ...inside) {
  const classes = ["bar-of", kind, span.error && "error", ...(kind === "audio" ? [] : edges(span))];
  return el(
    "button",
    {
      type: "button",
      tabindex: "-1",
      class: classes.filter(Boolean).join(" "),
      "data-span": span.id,
      "aria-pressed": "false",
      "aria-label": spoken(span),
      title: spoken(span),
      style,
    },
    inside,
  );
}

/** How a span's ends are drawn: what nobody has stated, and what goes on. Audio ends by itself. */
const edges = (span) =>
  [span.open && "open", span.inferred[0] && "start-inferred", span.inferred[1] && "end-inferred"].filter(Boolean);

const words = (text) => el("span", { class: "words" }, text);

function userLane({ conversation, place }) {
  const spans = conversation.spans.filter((span) => span.role === "user");
  if (!spans.length) return null;
  const { rows, count } = stacked(spans);
  return lane(
    "user",
    "User",
    count * (ROW.user + GAP) + GAP,
    spans.map((span) =>
      bar(
        span,
        "user",
        {
          ...place(span.start, span.end),
          top: `${GAP + rows.get(span.id) * (ROW.user + GAP)}px`,
          height: `${ROW.user}px`,
        },
        words(span.text || lasting(span.end - span.start)),
      ),
    ),
  );
}

/** How long the user waited: a bracket from the end of the speech to the first audio. */
function waitLane({ conversation, place }) {
  const waits = conversation.spans.filter((span) => span.wait);
  if (!waits.length) return null;
  return el(
    "div",
    { class: "lane wait", "aria-hidden": "true" },
    el("div", { class: "lane-name" }, ""),
    el(
      "div",
      { class: "bars" },
      waits.map(({ wait }) =>
        el(
          "div",
          {
            class: "bracket",
            title: `${lasting(wait.end - wait.start)} ${wait.what}`,
            style: place(wait.start, wait.end),
          },
          el("span", {}, lasting(wait.end - wait.start)),
        ),
      ),
    ),
  );
}

/** Above what was heard, below when it was made. */
function agentLane({ conversation, place }) {
  const responses = conversation.spans.filter((span) => span.role === "agent");
  if (!responses.length) return null;
  const loud = responses.filter((span) => span.audio);
  const written = responses.filter((span) => !span.audio && span.text);
  const upper = [...loud, ...written].sort((a, b) => shownFrom(a) - shownFrom(b));
  const heard = stacked(upper, { from: shownFrom, to: (span) => (span.audio ? span.audio.heard : span.end) });
  const made = stacked(responses);
  const top = GAP + heard.count * (ROW.agent + GAP);
  const bars = [];
  for (const span of upper) {
    const y = { top: `${GAP + heard.rows.get(span.id) * (ROW.agent + GAP)}px`, height: `${ROW.agent}px` };
    if (!span.audio) bars.push(bar(span, "written", { ...place(span.start, span.end), ...y }, words(span.text)));
    else bars.push(...audioBars(span, nextAfter(span, loud), place, y));
  }
  for (const span of responses) {
    const y = { top: `${top + made.rows.get(span.id) * (ROW.making + GAP)}px`, height: `${ROW.making}px` };
    const style = { ...place(span.start, span.end), ...y };
    if (span.audio || span.text) bars.push(shadow(span, "making", style));
    else bars.push(bar(span, "making", style));
  }
  return lane("agent", "Agent", top + made.count * (ROW.making + GAP), bars);
}

const shownFrom = (span) => (span.audio ? span.audio.start : span.start);

/** What only shows more of a span that has a button elsewhere: it can be clicked, and is not read out twice. */
const shadow = (span, kind, style, ...inside) =>
  el(
    "div",
    {
      class: ["bar-of", kind, span.error && "error", ...edges(span)].filter(Boolean).join(" "),
      "data-shadow": span.id,
      "aria-hidden": "true",
      title: `${title(span)}: generated in ${lasting(span.end - span.start)}`,
      style,
    },
    inside,
  );

function nextAfter(span, loud) {
  return Math.min(
    ...loud.filter((other) => other.audio.start > span.audio.start).map((other) => other.audio.start),
    Infinity,
  );
}

function audioBars(span, next, place, y) {
  const { audio } = span;
  const inside = words(span.text || lasting(audio.heard - audio.start));
  const bars = [bar(span, "audio", { ...place(audio.start, audio.heard), ...y }, inside)];
  if (audio.end - audio.heard > 1) {
    const end = Math.max(Math.min(audio.end, next), audio.heard);
    bars.push(
      el(
        "div",
        {
          class: "bar-of unheard",
          "data-shadow": span.id,
          "aria-hidden": "true",
          title: cutWords(span),
          style: { ...place(audio.heard, end), ...y },
        },
        words(cutWords(span)),
      ),
    );
  }
  return bars;
}

/** Tools that ran side by side are above one another; below a tool, the application's own spans. */
function toolLane({ conversation, place }) {
  const spans = conversation.spans.filter((span) => span.role === "tool" || (span.role === "other" && span.parent));
  const tools = spans.filter((span) => span.role === "tool").sort((a, b) => a.start - b.start);
  if (!spans.length) return null;
  const ordered = [...tools, ...spans.filter((span) => span.role === "other")]; // these in the order of the tree, parents first
  const below = (span, rows) => (rows.has(span.parent) ? rows.get(span.parent) + 1 : 0);
  const { rows, count } = stacked(ordered, { under: below });
  const heights = Array.from({ length: count }, (_, row) =>
    Math.max(...ordered.filter((span) => rows.get(span.id) === row).map((span) => ROW[span.role])),
  );
  const tops = heights.map((_, row) => GAP + heights.slice(0, row).reduce((sum, height) => sum + height + GAP, 0));
  const bars = ordered.map((span) => {
    const row = rows.get(span.id);
    const style = { ...place(span.start, span.end), top: `${tops[row]}px`, height: `${ROW[span.role]}px` };
    return bar(
      span,
      span.role,
      style,
      span.role === "tool" ? running(span) : null,
      words(titled(span)),
      span.role === "tool" ? logMarks(span) : null,
    );
  });
  return lane("tool", "Tools", tops[count - 1] + heights[count - 1] + GAP, bars);
}

const within = (span, ms) =>
  percent(Math.min(Math.max((ms - span.start) / Math.max(span.end - span.start, 1e-9), 0), 1));

function running(span) {
  if (!span.run) return null;
  const width = Math.min((span.run.end - span.run.start) / Math.max(span.end - span.start, 1e-9), 1);
  return el("i", { class: "run", style: { left: within(span, span.run.start), width: percent(width) } });
}

const logMarks = (span) =>
  span.events
    .filter((event) => event.log)
    .map((event) => el("i", { class: `log ${severity(event)}`, style: { left: within(span, event.at) } }));

function severity(event) {
  if (event.gap) return "warn";
  if (!event.log) return event.error ? "bad" : "";
  return /^(ERR|CRIT|FATAL)/i.test(event.log.severity) ? "bad" : /^WARN/i.test(event.log.severity) ? "warn" : "";
}

/** What happened and is no span: errors, handoffs, guardrails, what was not understood, what was lost. */
function eventLane({ conversation, at }) {
  const events = conversation.spans.flatMap((span) =>
    span.role === "other"
      ? []
      : span.events.filter((event) => !event.log).map((event, number) => [span, event, number]),
  );
  if (!events.length) return null;
  const marks = events.map(([span, event]) =>
    el("button", {
      type: "button",
      tabindex: "-1",
      class: `mark ${severity(event)}`,
      "data-span": span.id,
      "data-at": event.at,
      "aria-label": `${eventTitle(event)} at ${offset(event.at, 1)}`,
      title: `${eventTitle(event)}, ${offset(event.at)}`,
      style: { left: at(event.at) },
    }),
  );
  return lane("event", "Events", 28, marks);
}

function turnLane({ conversation, at, place, whole }) {
  const { turns } = conversation;
  if (!turns.length) return null;
  return el(
    "div",
    { class: "lane turn", "aria-hidden": "true" },
    el("div", { class: "lane-name" }, ""),
    el(
      "div",
      { class: "bars" },
      turns.map((turn, number) => {
        const end = number + 1 < turns.length ? turns[number + 1].start : whole;
        return el("div", { class: "turn-name", style: place(turn.start, end) }, el("span", {}, `Turn ${turn.index}`));
      }),
    ),
  );
}

/** Across all lanes: where turns begin, where the user cut an answer, and where records are not there. */
function overlay({ conversation, at, place }) {
  const lines = conversation.turns.map((turn) => el("i", { class: "line", style: { left: at(turn.start) } }));
  for (const span of conversation.spans) {
    if (span.audio?.cut) lines.push(el("i", { class: "line cut", style: { left: at(span.audio.heard) } }));
    for (const event of span.events) {
      if (event.gap) lines.push(el("i", { class: "lost", style: place(event.at, event.gap.end) }));
    }
  }
  return el("div", { class: "overlay", "aria-hidden": "true" }, lines);
}

/** The time under the pointer. */
function follow(track, whole) {
  const shown = el("span", {});
  const line = el("i", { class: "line pointer", "aria-hidden": "true" }, shown);
  track.querySelector(".overlay").append(line);
  track.addEventListener("pointermove", (event) => {
    const box = track.querySelector(".ticks").getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    line.classList.toggle("on", part >= 0 && part <= 1);
    line.style.left = percent(part);
    shown.textContent = offset(part * whole, 2);
  });
  track.addEventListener("pointerleave", () => line.classList.remove("on"));
}

const STEPS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200,
];

/** Ticks as far apart as they can be read; words where they have room. Both depend on how wide the track is shown. */
function fitToWidth(view, conversation) {
  const ticks = view.querySelector(".ticks");
  const width = ticks.clientWidth;
  const seconds = Math.max(conversation.shown * 1.01, 1) / 1000;
  const step = STEPS.find((each) => (each / seconds) * width >= 72) || STEPS.at(-1);
  const digits = step >= 1 ? 0 : step >= 0.1 ? 1 : step >= 0.01 ? 2 : 3;
  const number = Math.min(Math.floor((seconds * (1 - 40 / Math.max(width, 41))) / step), 2000); // the last one needs room, too
  ticks.replaceChildren(
    ...Array.from({ length: number + 1 }, (_, index) =>
      el(
        "span",
        { class: "tick", style: { left: percent((index * step) / seconds) } },
        offset(index * step * 1000, digits),
      ),
    ),
  );
  for (const box of view.querySelectorAll(".words")) {
    box.classList.toggle("hidden", (parseFloat(box.parentElement.style.width) / 100) * width < LABEL_WIDTH);
  }
}

function firstZoom(conversation) {
  const width = Math.max(document.documentElement.clientWidth - 100, 200);
  const wanted = (conversation.shown / 1000) * (width < 560 ? LEAST_SECOND.narrow : LEAST_SECOND.wide);
  return Math.min(Math.max(wanted / width, 1), MOST_ZOOM);
}
