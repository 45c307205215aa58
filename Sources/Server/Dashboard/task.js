// One task: its log as it comes, its steps, its changes, its record. What others wrote is set as text, never as HTML.

import { ask, follow, text } from "./api.js";
import { steps } from "./steps.js";

const $ = (id) => document.getElementById(id);
const mostLines = 5000;
const ended = ["succeeded", "failed", "cancelled", "timed_out"];

let current;

export const element = (name, words, className) => {
  const made = document.createElement(name);
  if (words !== undefined) made.textContent = words;
  if (className) made.className = className;
  return made;
};

export function openTask(id, onConnection) {
  closeTask();
  current = { id, abort: new AbortController(), lines: [], isFollowing: true };
  $("task").hidden = false;
  $("task-title").textContent = id;
  for (const part of ["log", "steps", "commits", "files", "diff", "record", "task-facts", "changes-problem", "matches"]) $(part).replaceChildren();
  $("search").value = "";
  $("no-steps").hidden = false;
  select("log");
  $("task-title").focus();
  $("task").scrollIntoView({ block: "start" });
  showRecord(current);
  followLog(current, onConnection);
}

export function closeTask() {
  current?.abort.abort();
  current = undefined;
  $("task").hidden = true;
}

export const openID = () => current?.id;

/** Something about the task has changed. */
export function refreshTask(id) {
  if (current?.id === id) showRecord(current);
}

async function showRecord(task) {
  try {
    const record = await ask(`/workers/${encodeURIComponent(task.id)}`);
    if (task !== current) return;
    $("record").textContent = JSON.stringify(record, null, 2);
    $("task-facts").textContent = `${record.repo}, branch ${record.branch}: ${record.state}. ${record.reason}`;
    $("cancel").hidden = ended.includes(record.state);
  } catch (error) {
    if (task === current) $("task-facts").textContent = error.message;
  }
}

// ---- the log ----

async function followLog(task, onConnection) {
  try {
    await follow(`/workers/${encodeURIComponent(task.id)}/logs?lines=${mostLines}`, {
      signal: task.abort.signal,
      onConnection,
      onEvent: (event) => {
        if (task !== current) return true;
        if (event.name === "end") {
          showRecord(task);
          return true;
        }
        if (event.name === "missed") addLine(task, `[${JSON.parse(event.data).lines} lines were missed]`);
        else addLine(task, event.data);
        return false;
      },
    });
  } catch (error) {
    if (task === current) addLine(task, error.message);
  }
}

function addLine(task, line) {
  task.lines.push(line);
  task.pending ??= requestAnimationFrame(() => {
    task.pending = undefined;
    if (task === current) draw(task);
  });
}

/** Draws what is new, in one go a frame. */
function draw(task) {
  const log = $("log");
  const drawn = task.drawn ?? 0;
  const fresh = document.createDocumentFragment();
  for (const line of task.lines.slice(drawn)) {
    fresh.append(marked(line));
    for (const step of steps(line)) addStep(step, line);
  }
  log.append(fresh);
  while (log.childElementCount > mostLines) log.firstChild.remove();
  if (task.lines.length > mostLines) task.lines.splice(0, task.lines.length - mostLines);
  task.drawn = task.lines.length;
  if (task.isFollowing) log.scrollTop = log.scrollHeight;
  countMatches();
}

function marked(line) {
  const row = element("div");
  const wanted = $("search").value;
  if (!wanted) {
    row.textContent = line || "\u00a0";
    return row;
  }
  const lower = line.toLowerCase();
  let at = 0;
  for (let found = lower.indexOf(wanted.toLowerCase()); found >= 0; found = lower.indexOf(wanted.toLowerCase(), at)) {
    row.append(line.slice(at, found), element("mark", line.slice(found, found + wanted.length)));
    at = found + wanted.length;
  }
  row.append(line.slice(at) || "\u00a0");
  return row;
}

function countMatches() {
  const count = $("log").querySelectorAll("mark").length;
  $("matches").textContent = $("search").value ? `${count} found` : "";
}

function search() {
  if (!current) return;
  $("log").replaceChildren(...current.lines.map(marked));
  countMatches();
  $("log").querySelector("mark")?.scrollIntoView({ block: "nearest" });
}

function scrolled() {
  if (!current) return;
  const log = $("log");
  current.isFollowing = log.scrollHeight - log.scrollTop - log.clientHeight < 8;
  $("to-end").hidden = current.isFollowing;
}

async function download() {
  const id = current.id;
  const blob = new Blob([await text(`/workers/${encodeURIComponent(id)}/logs?lines=100000`)], { type: "text/plain" });
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${id}.log`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- steps and changes ----

const titles = { text: "says", thought: "thinks", tool: "calls", result: "gets", failure: "fails", cost: "used", end: "ends" };

function addStep(step, line) {
  const row = element("li");
  const cost = step.cost ? ` ($${step.cost.toFixed(4)})` : "";
  row.append(element("b", `${titles[step.kind]}${cost} `, step.kind === "failure" ? "failed" : undefined), element("span", step.words, "words"));
  const raw = element("details");
  raw.append(element("summary", "raw"), element("code", line));
  row.append(raw);
  $("steps").append(row);
  while ($("steps").childElementCount > mostLines) $("steps").firstChild.remove();
  $("no-steps").hidden = true;
}

async function showChanges() {
  const task = current;
  try {
    const changes = await ask(`/workers/${encodeURIComponent(task.id)}/changes`);
    if (task !== current) return;
    $("changes-problem").textContent = changes.truncated ? "There is more than is shown here." : "";
    $("commits").replaceChildren(...changes.commits.map((commit) => element("li", `${commit.id.slice(0, 12)} ${commit.subject}`)));
    $("files").replaceChildren(
      ...changes.files.map((file) => element("li", `${file.path} ${file.added === undefined ? "binary" : `+${file.added} -${file.deleted}`}`)),
      ...changes.untracked.map((path) => element("li", `${path} (not tracked)`)),
    );
    const kinds = { "+": "added", "-": "deleted" };
    $("diff").replaceChildren(...changes.diff.split("\n").map((line) => element("div", line || "\u00a0", kinds[line[0]])));
  } catch (error) {
    if (task === current) $("changes-problem").textContent = error.message;
  }
}

// ---- tabs ----

const tabs = ["log", "steps", "changes", "record"];

function select(name, focus) {
  for (const tab of tabs) {
    const isChosen = tab === name;
    $(`tab-${tab}`).setAttribute("aria-selected", String(isChosen));
    $(`tab-${tab}`).tabIndex = isChosen ? 0 : -1;
    $(`panel-${tab}`).hidden = !isChosen;
  }
  if (focus) $(`tab-${name}`).focus();
  if (name === "changes" && current) showChanges();
}

for (const [index, tab] of tabs.entries()) {
  $(`tab-${tab}`).addEventListener("click", () => select(tab));
  $(`tab-${tab}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) select(tabs[(index + step + tabs.length) % tabs.length], true);
  });
}
$("search").addEventListener("input", search);
$("log").addEventListener("scroll", scrolled);
$("to-end").addEventListener("click", () => {
  current.isFollowing = true;
  $("log").scrollTop = $("log").scrollHeight;
  $("to-end").hidden = true;
});
$("download").addEventListener("click", () => download().catch((error) => addLine(current, error.message)));
$("refresh-changes").addEventListener("click", showChanges);
