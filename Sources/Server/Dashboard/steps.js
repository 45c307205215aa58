// Reads the agents' JSON lines as steps: {kind, words, cost}. A line that is none gives none.

const clipped = (value, most = 4000) => {
  const words = typeof value === "string" ? value : JSON.stringify(value, null, 1) || "";
  return words.length > most ? `${words.slice(0, most)} …` : words;
};

const tool = (name, input) => ({ kind: "tool", words: `${name}: ${clipped(input?.command ?? input ?? "")}` });
const result = (failed, words) => ({ kind: failed ? "failure" : "result", words: clipped(words) });
const said = (words) => ({ kind: "text", words: clipped(words) });

const plain = (content) =>
  typeof content === "string" ? content : Array.isArray(content) ? content.map((part) => part?.text ?? "").join("\n") : content ?? "";

function opencode(event) {
  const part = event.part ?? {};
  switch (event.type) {
    case "text": return [said(part.text ?? "")];
    case "reasoning": return [{ kind: "thought", words: clipped(part.text ?? "") }];
    case "tool_use":
      return [tool(part.tool ?? "tool", part.state?.input), result(part.state?.status !== "completed", part.state?.output ?? part.state?.error ?? "")];
    case "step_finish": return [{ kind: "cost", words: part.reason ?? "step", cost: part.cost }];
    case "error": return [result(true, event.error?.data?.message ?? event.error?.message ?? event.error ?? "")];
    default: return [];
  }
}

function claude(event) {
  if (event.type === "result") return [{ kind: event.is_error ? "failure" : "end", words: clipped(event.result ?? event.subtype ?? ""), cost: event.total_cost_usd }];
  const content = event.message?.content;
  if (!Array.isArray(content)) return [];
  return content.flatMap((block) => {
    switch (block.type) {
      case "text": return event.type === "assistant" ? [said(block.text)] : [];
      case "thinking": return [{ kind: "thought", words: clipped(block.thinking ?? "") }];
      case "tool_use": return [tool(block.name, block.input)];
      case "tool_result": return [result(block.is_error, plain(block.content))];
      default: return [];
    }
  });
}

function codex(event) {
  const item = event.item ?? {};
  if (event.type === "turn.failed") return [result(true, event.error?.message ?? "")];
  if (event.type !== "item.completed") return [];
  if (item.type === "agent_message") return [said(item.text ?? "")];
  if (item.type === "reasoning") return [{ kind: "thought", words: clipped(item.text ?? "") }];
  if (item.type === "command_execution") return [tool("shell", { command: item.command }), result(item.exit_code !== 0, item.aggregated_output ?? "")];
  return item.type ? [tool(item.type, item)] : [];
}

function gemini(event) {
  switch (event.type) {
    case "message": return event.role === "assistant" ? [said(event.content ?? "")] : [];
    case "tool_use": return [tool(event.tool_name ?? "tool", event.parameters)];
    case "tool_result": return [result(event.status !== "success", event.output ?? event.error?.message ?? "")];
    case "error": return [result(true, event.message ?? "")];
    default: return [];
  }
}

export function steps(line) {
  if (!line.startsWith("{")) return [];
  let event;
  try {
    event = JSON.parse(line);
  } catch {
    return [];
  }
  if (typeof event?.type !== "string") return [];
  if (event.part || (event.type === "error" && event.sessionID)) return opencode(event);
  if (event.item || event.type.startsWith("turn.")) return codex(event);
  if (event.message && typeof event.message === "object") return claude(event);
  if (event.type === "result" && event.subtype) return claude(event);
  return gemini(event);
}
