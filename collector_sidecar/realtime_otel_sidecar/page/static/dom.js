// Elements, and how numbers are written. Everything that comes from a conversation goes through `el` as text.

/** An element. `given`: its class, data-*, aria-*, … and on* handlers; `style`: custom properties and styles. */
function el(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "style") for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const percent = (part) => `${(part * 100).toFixed(4)}%`;

/** A length of time, of milliseconds: as exact as one wants to read it. */
function lasting(ms) {
  if (ms < 0.9995) return `${ms.toFixed(ms ? 2 : 0)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59995) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const rest = String(seconds % 60).padStart(2, "0");
  return hours ? `${hours} h ${String(minutes).padStart(2, "0")} min` : `${minutes} min ${rest} s`;
}

/** A point in time, counted from the beginning. */
function offset(ms, digits = 3) {
  const sign = ms < 0 ? "−" : "";
  const unit = 10 ** digits;
  const all = Math.round((Math.abs(ms) / 1000) * unit); // in whole units, so that 59.9996 is not written 0:60.000
  const seconds = (all % (60 * unit)) / unit;
  const minutes = Math.floor(all / (60 * unit));
  const shown = seconds.toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const hours = Math.floor(minutes / 60);
  return sign + (hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}` : minutes) + `:${shown}`;
}

/** A date and time where the reader is. */
function clock(ms, parts = {}) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "unknown";
  return new Intl.DateTimeFormat("en-GB", {
    year: "numeric",
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    ...parts,
  }).format(date);
}

const zone = () =>
  Intl.DateTimeFormat("en-GB", { timeZoneName: "short" })
    .formatToParts(new Date())
    .find((part) => part.type === "timeZoneName").value;
