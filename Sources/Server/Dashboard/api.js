// Speaks to the node. The token lives in this tab's session alone, and goes nowhere but into the Authorization header.

const key = "aidevops-token";

export const token = {
  get: () => sessionStorage.getItem(key),
  set: (value) => sessionStorage.setItem(key, value),
  clear: () => sessionStorage.removeItem(key),
};

/** An answer that isn't a success: the node's own sentence, and the field that it names. */
export class Refusal extends Error {
  constructor(status, body) {
    super(body.error || `The node answered with status ${status}.`);
    this.status = status;
    this.field = body.field;
  }
}

const headers = (more) => {
  const value = token.get();
  return { ...more, ...(value ? { Authorization: `Bearer ${value}` } : {}) };
};

export async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers(options.headers), cache: "no-store" });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, body);
  return body;
}

export async function text(path) {
  const response = await fetch(path, { headers: headers(), cache: "no-store" });
  if (!response.ok) throw new Refusal(response.status, await response.json().catch(() => ({})));
  return response.text();
}

/**
 * Follows server-sent events over fetch (EventSource can't send a token), over lost connections, until the signal aborts or
 * `onEvent` answers true. An event is {name, id, data}.
 */
export async function follow(path, { onEvent, onConnection = () => {}, signal, after }) {
  let last = after;
  let pause = 1000;
  while (!signal.aborted) {
    try {
      const more = { Accept: "text/event-stream", ...(last === undefined ? {} : { "Last-Event-ID": String(last) }) };
      const response = await fetch(path, { headers: headers(more), signal, cache: "no-store" });
      if (!response.ok) throw new Refusal(response.status, await response.json().catch(() => ({})));
      onConnection(true);
      pause = 1000;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for await (const event of events(reader)) {
        if (event.id !== undefined) last = event.id;
        if (onEvent(event)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refusal && error.status < 500 && error.status !== 429) throw error;
    }
    if (signal.aborted) return;
    onConnection(false);
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 15000);
  }
}

async function* events(reader) {
  let rest = "";
  let event = { name: "message", data: [] };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length) yield { ...event, data: event.data.join("\n") };
        event = { name: "message", data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      const field = line.slice(0, colon);
      const content = line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") event.name = content;
      if (field === "id") event.id = Number(content);
      if (field === "data") event.data.push(content);
    }
  }
}
