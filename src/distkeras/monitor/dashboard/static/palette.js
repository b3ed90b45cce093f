// What has which colour. The names are those of the style sheet; canvases need their values.

export const STATES = {
  training: { text: "training", color: "--calm", rank: 4 },
  lost: { text: "lost", color: "--red", rank: 1, shape: "ring" },
  failed: { text: "failed", color: "--failed", rank: 0, shape: "square" },
  starting: { text: "starting", color: "--faint", rank: 2 },
  importing: { text: "importing Keras", color: "--soft", rank: 2 },
  loading: { text: "loading the model", color: "--yellow", rank: 2 },
  waiting: { text: "waiting", color: "--grey", rank: 2 },
  compiling: { text: "compiling", color: "--orange", rank: 2 },
  resting: { text: "resting", color: "--sky", rank: 5 },
  done: { text: "finished", color: "--rest", rank: 6 },
};

export const SHARES = {
  computing: { text: "computing", color: "--blue" },
  waiting: { text: "waiting for rows", color: "--orange" },
  exchanging: { text: "exchanging", color: "--green" },
  blocked: { text: "held by the server", color: "--purple" },
};

export const STATUS = {
  running: { text: "running", color: "--blue" },
  finished: { text: "finished", color: "--green" },
  interrupted: { text: "interrupted", color: "--orange", shape: "ring" },
  unreadable: { text: "not readable", color: "--red", shape: "square" },
};

// In this order neighbours differ in lightness, too.
export const SERIES = ["--blue", "--orange", "--green", "--purple", "--sky", "--red", "--yellow", "--grey"];
export const DASHES = [[], [6, 4], [2, 3]];

let probe = null;
const known = new Map();

// The value of a colour of the style sheet in the theme that is shown.
export function color(name, opacity = 1) {
  const key = `${name} ${opacity}`;
  if (!known.has(key)) {
    if (probe === null) {
      probe = document.createElement("span");
      probe.hidden = true;
      document.body.append(probe);
    }
    probe.style.color = opacity === 1 ? `var(${name})` : `color-mix(in srgb, var(${name}) ${100 * opacity}%, transparent)`;
    known.set(key, getComputedStyle(probe).color);
  }
  return known.get(key);
}

const listeners = new Set();

export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed() {
  known.clear();
  for (const listener of [...listeners]) listener();
}

const THEMES = ["auto", "light", "dark"];

// A button that goes through the themes; the choice is kept in this browser.
export function themeSwitch(button) {
  const show = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[theme];
    button.setAttribute("aria-label", `Colours: ${theme}. Press for the next.`);
    changed();
  };
  let theme = THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("theme", theme);
    show(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  show(theme);
}
