// Builds elements. Text becomes text nodes: nothing that a run says is taken for HTML.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "mark") node.style.setProperty("--mark", value);
    else if (name === "width") node.style.width = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function replace(parent, ...children) {
  parent.replaceChildren(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return parent;
}

// Changes the text only if it differs, so that a screen reader does not repeat it and a selection stays.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A group of buttons of which one is pressed.
export function segments(label, choices, chosen, onChoice) {
  const buttons = choices.map(([key, text]) =>
    el("button", { type: "button", "aria-pressed": String(key === chosen), onclick: () => choose(key) }, text),
  );
  function choose(key) {
    choices.forEach(([own], place) => buttons[place].setAttribute("aria-pressed", String(own === key)));
    onChoice(key);
  }
  return el("div", { class: "segments", role: "group", "aria-label": label }, buttons);
}

// A state as a word with a mark; the words and marks are in palette.js.
export function pill({ text, color, shape }) {
  return el("span", { class: "pill", mark: `var(${color})`, "data-shape": shape ?? "dot" }, text);
}

export function card(...children) {
  return el("div", { class: "card" }, children);
}

export function section(title, note, tools, ...children) {
  const heading = el("h2", {}, title);
  const extra = tools ? el("div", { class: "tools" }, tools) : null;
  return el("section", { class: "section", "aria-label": title },
    el("header", {}, heading, note ? el("p", {}, note) : null, extra), children);
}
