// Elements, and how times and scores are written.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else if (key === "dataset") Object.assign(made.dataset, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

export function clock(seconds, digits = 1) {
  const unit = 10 ** digits;
  const parts = Math.round(Math.max(seconds, 0) * unit);
  const rest = ((parts % (60 * unit)) / unit).toFixed(digits);
  const width = digits ? 3 + digits : 2;
  const minutes = Math.floor(parts / (60 * unit));
  if (minutes < 60) return `${minutes}:${rest.padStart(width, "0")}`;
  const pair = String(minutes % 60).padStart(2, "0");
  return `${Math.floor(minutes / 60)}:${pair}:${rest.padStart(width, "0")}`;
}

export function period(moment) {
  return `${clock(moment.start)} – ${clock(moment.end)}`;
}

export function scored({ score, isVague }, calibrated) {
  if (!calibrated) return `score ${score.toFixed(2)}`;
  if (isVague) return "likelihood not known";
  return `${Math.round(100 * score)} % likely right`;
}

export function counted(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function badge(row) {
  const text = String(row + 1);
  return element("span", { className: `badge q${row}`, "aria-hidden": "true" }, text);
}
