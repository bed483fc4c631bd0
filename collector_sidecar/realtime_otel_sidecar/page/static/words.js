// What things are called.

const ROLES = {
  session: "Session",
  user: "User",
  agent: "Agent",
  tool: "Tool",
  playback: "Playback",
  transcript: "Transcript",
  other: "Application",
};

const LINKS = {
  answers: "answers",
  speaks: "speaks the output of",
  interrupts: "interrupts",
  continues: "continues",
  transcribes: "is the transcript of",
};

const REASONS = {
  completed: "good",
  session_closed: "good",
  silence: "warn",
  interrupted: "warn",
  cancelled: "warn",
  incomplete: "warn",
  superseded: "warn",
  disconnected: "bad",
  failed: "bad",
  evicted: "bad",
  internal_error: "bad",
};

const reasonWords = (reason) => reason.replaceAll("_", " ");

/** What a span is about, in as few words as there are. */
function title(span) {
  if (span.role === "tool") return span.attributes["gen_ai.tool.name"] || span.name;
  if (span.role === "session") return "Session";
  if (span.role === "playback") return "Playback";
  if (span.role === "other") return span.name;
  return ROLES[span.role];
}

/** The same with what was said, or with how long it took. */
const titled = (span) => (span.text ? span.text : title(span));

const eventTitle = (event) => (event.gap ? `Records lost: ${event.gap.what}` : event.name);

/** What a screen reader says of a span. */
function spoken(span) {
  const parts = [title(span)];
  if (span.text) parts.push(`“${span.text}”`);
  parts.push(`at ${offset(span.start, 1)}`, span.open ? "still open" : `for ${lasting(span.end - span.start)}`);
  if (span.cut) parts.push("interrupts the agent");
  if (span.audio && span.audio.end - span.audio.heard > 1) parts.push(cutWords(span));
  if (span.wait) parts.push(`first audio after ${lasting(span.wait.end - span.wait.start)}`);
  if (span.error) parts.push(`error: ${span.error}`);
  else if (span.reason && span.reason !== "completed") parts.push(reasonWords(span.reason));
  return parts.join(", ");
}

const cutWords = ({ audio }) =>
  `heard ${((audio.heard - audio.start) / 1000).toFixed(1)} of ${tenths(audio.end - audio.start)}`;
const tenths = (ms) => `${(ms / 1000).toFixed(1)} s`;

/** What an event tells beside its name: an error, a handoff, the guardrails that were tripped. */
function eventWords({ attributes }) {
  if (attributes["openai.realtime.handoff.to"])
    return `${attributes["openai.realtime.handoff.from"] || "?"} → ${attributes["openai.realtime.handoff.to"]}`;
  const tripped = attributes["openai.realtime.guardrails"];
  if (Array.isArray(tripped)) return tripped.join(", ");
  return ["error.type", "openai.realtime.error.code", "openai.realtime.error.message"]
    .map((name) => attributes[name])
    .filter(Boolean)
    .join(" ");
}
