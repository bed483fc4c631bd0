// The head of a conversation: which one it is, its figures, and what of its data is missing.

function headView(conversation, many) {
  const { counts, wait } = conversation;
  const figures = [
    ["Length", lasting(conversation.length)],
    ["Turns", counts.turns],
    ["Tools", counts.tools],
    [
      "Response time",
      wait ? lasting(wait.median) : "—",
      wait && wait.number > 1 ? `longest ${lasting(wait.longest)}` : wait ? "end of speech to audio" : "",
    ],
    ["Interruptions", counts.interruptions, "", counts.interruptions ? "warn" : ""],
    ["Errors", counts.errors, "", counts.errors ? "bad" : ""],
    [
      "Tokens",
      (counts.input_tokens + counts.output_tokens).toLocaleString("en"),
      `${counts.input_tokens.toLocaleString("en")} in, ${counts.output_tokens.toLocaleString("en")} out`,
    ],
  ];
  return [
    el(
      "header",
      { class: "head" },
      many && el("p", { class: "back" }, el("a", { href: "#" }, "← All conversations")),
      el(
        "div",
        { class: "bar" },
        el("h1", {}, conversation.service || conversation.model || "Conversation"),
        state(conversation),
      ),
      el(
        "p",
        { class: "muted facts" },
        el("time", { datetime: isoTime(conversation.started) }, `${clock(conversation.started)} ${zone()}`),
        conversation.model && el("span", {}, conversation.model),
        el("span", {}, "trace ", el("code", {}, conversation.trace)),
        conversation.failure && el("span", { class: "bad" }, conversation.failure),
      ),
      el(
        "dl",
        { class: "figures" },
        figures.map(([name, value, note, kind]) =>
          el(
            "div",
            { class: kind || "" },
            el("dt", {}, name),
            el("dd", {}, String(value), note ? el("small", {}, note) : null),
          ),
        ),
      ),
    ),
    conversation.quality.length
      ? el(
          "aside",
          { class: "card notice", "aria-label": "Quality of the data" },
          el(
            "ul",
            {},
            conversation.quality.map((text) => el("li", {}, text)),
          ),
        )
      : null,
  ];
}

function isoTime(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}
