// Numbers as people read them. Figures keep one width, so that they do not jump.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const NOTHING = "–";

export function count(value) {
  return isNumber(value) ? whole.format(value) : NOTHING;
}

export function short(value) {
  if (!isNumber(value)) return NOTHING;
  const size = Math.abs(value);
  for (const [limit, unit] of [[1e9, "B"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= limit) return `${significant(value / (unit === "k" ? 1e3 : limit), 3)} ${unit}`;
  }
  return size >= 100 || Number.isInteger(value) ? whole.format(value) : significant(value, 3);
}

// A number at an axis: without zeros that say nothing.
export function tick(format) {
  return (value) => format(value).replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
}

export function metric(value) {
  if (typeof value === "string") return value; // "nan", "inf", "-inf"
  if (!isNumber(value)) return NOTHING;
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return value.toFixed(size >= 1000 ? 1 : size >= 10 ? 2 : 4);
}

export function bytes(value) {
  if (!isNumber(value)) return NOTHING;
  for (const [limit, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (Math.abs(value) >= limit) return `${significant(value / limit, 3)} ${unit}`;
  }
  return `${whole.format(value)} B`;
}

export function duration(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// A time in a run: 0:07, 12:30, 3:04:10.
export function clock(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  const all = Math.floor(seconds);
  const pad = (number) => String(number).padStart(2, "0");
  const tail = `${pad(Math.floor(all / 60) % 60)}:${pad(all % 60)}`;
  return all >= 3600 ? `${Math.floor(all / 3600)}:${tail}` : tail.replace(/^0(\d)/, "$1");
}

export function percent(share) {
  return isNumber(share) ? `${Math.round(100 * share)} %` : NOTHING;
}

export function milliseconds(seconds) {
  return isNumber(seconds) ? `${significant(1000 * seconds, 3)} ms` : NOTHING;
}

export function date(timestamp) {
  if (!isNumber(timestamp)) return NOTHING;
  return new Date(1000 * timestamp).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function significant(value, digits) {
  const text = value.toPrecision(digits);
  return text.includes("e") ? whole.format(value) : text;
}

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}
