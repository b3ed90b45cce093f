// Talks to the server, by addresses that are relative to the page, so that it works below any prefix.

const STREAM_PATIENCE = 25000; // The server says something every 15 s: a proxy that collects it hides that.
const POLL_MILLISECONDS = 2000;
const AGAIN_MILLISECONDS = [500, 1000, 2000, 4000, 8000];
const POLLS_BEFORE_STREAM = 30;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// The token comes behind the # of the link, which no server sees, and is kept until this tab is closed.
export function takeToken(parameters) {
  const token = parameters.get("token");
  if (token) sessionStorage.setItem("token", token);
  return Boolean(token);
}

function headers(more = {}) {
  const token = sessionStorage.getItem("token");
  return token ? { "X-Distkeras-Token": token, ...more } : more;
}

async function checked(response) {
  if (response.ok) return response;
  let reason = `${response.status} ${response.statusText}`;
  try {
    reason = (await response.json()).error ?? reason;
  } catch {
    // A proxy's own page: its status is all that there is to say.
  }
  throw new Refused(response.status, reason);
}

export async function get(path, parameters = {}) {
  const response = await fetch(`${path}?${new URLSearchParams(parameters)}`, { headers: headers() });
  return (await checked(response)).json();
}

export async function post(path, parameters) {
  const options = { method: "POST", headers: headers({ "X-Distkeras": "page" }) };
  return (await checked(await fetch(`${path}?${new URLSearchParams(parameters)}`, options))).json();
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Follows what changes: a stream, and where none comes through, one question after another. Returns what ends it.
// `source` is {ask, stream, parameters}: the paths, and what is asked for.
export function follow(source, onAnswer, onState) {
  const ending = new AbortController();
  const followed = { source, cursor: "", signal: ending.signal, end: () => ending.abort(), onAnswer, onState };
  keepFollowing(followed);
  return () => ending.abort();
}

async function keepFollowing(followed) {
  let failures = 0;
  while (!followed.signal.aborted) {
    let isStreamed = false;
    try {
      if (!followed.cursor) take(followed, await ask(followed));
      await stream(followed, () => {
        isStreamed = true;
        failures = 0;
        followed.onState("live");
      });
    } catch (error) {
      if (followed.signal.aborted || isFinal(followed, error)) return;
    }
    if (followed.signal.aborted) return;
    if (!isStreamed && (await poll(followed))) continue;
    if (followed.signal.aborted) return;
    followed.onState("lost");
    await pause(AGAIN_MILLISECONDS[Math.min(failures++, AGAIN_MILLISECONDS.length - 1)]);
  }
}

// Tells of a refusal that would come again.
function isFinal(followed, error) {
  const final = error instanceof Refused && error.status < 500;
  if (final) {
    followed.onState("refused", error);
    followed.end();
  }
  return final;
}

function ask({ source, cursor }) {
  return get(source.ask, { ...source.parameters, cursor });
}

function take(followed, answer) {
  followed.cursor = answer.cursor;
  followed.onAnswer(answer);
}

// Reads server-sent events. The browser's EventSource could not send the token in a header.
async function stream(followed, onLife) {
  const quiet = new AbortController();
  const end = () => quiet.abort();
  followed.signal.addEventListener("abort", end);
  let timer = setTimeout(end, STREAM_PATIENCE);
  try {
    const more = followed.cursor ? { "Last-Event-ID": followed.cursor } : {};
    const options = { headers: headers(more), signal: quiet.signal, cache: "no-store" };
    const response = await checked(await fetch(`${followed.source.stream}?${new URLSearchParams(followed.source.parameters)}`, options));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(end, STREAM_PATIENCE);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      onLife();
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data: "));
        if (data.length) take(followed, JSON.parse(data.map((line) => line.slice(6)).join("\n")));
      }
    }
  } finally {
    clearTimeout(timer);
    followed.signal.removeEventListener("abort", end);
  }
}

// Asks again and again for a minute, then the stream gets another chance. Returns whether it was answered.
async function poll(followed) {
  for (let turn = 0; turn < POLLS_BEFORE_STREAM && !followed.signal.aborted; turn++) {
    try {
      take(followed, await ask(followed));
      followed.onState("polling");
    } catch (error) {
      if (!followed.signal.aborted) isFinal(followed, error);
      return turn > 0;
    }
    await pause(POLL_MILLISECONDS);
  }
  return true;
}
