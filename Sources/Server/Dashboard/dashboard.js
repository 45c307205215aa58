// The page: how the node is for everybody; with the token its tasks, live.

import { ask, follow, Refusal, token } from "./api.js";
import { closeTask, element, openID, openTask, refreshTask } from "./task.js";

const $ = (id) => document.getElementById(id);
const states = ["queued", "preparing", "running", "stopping", "restarting", "interrupted", "succeeded", "failed", "cancelled", "timed_out"];
const statusInterval = 5000;
const mostSamples = 240;

// ---- the node ----

const samples = { workers: [], memory: [] };

function figure(name, words) {
  const row = element("li", `${name} `);
  row.append(element("b", words));
  return row;
}

function showStatus(status) {
  const used = status.memory.total_mb - status.memory.available_mb;
  $("node-state").textContent = `${status.status}, version ${status.version}, up ${duration(status.uptime_seconds / 60)}`;
  const figures = [
    figure("workers", `${status.workers.active} of ${status.workers.max}`),
    figure("waiting", String(status.queue.length)),
    figure("memory", `${used} of ${status.memory.total_mb} MB in use`),
    figure("sandbox", status.sandbox.mode),
    figure("pulse", status.pulse.enabled ? `on, ${status.pulse.claims} claimed, ${status.pulse.problems} problems` : "off"),
  ];
  if (status.capacity) figures.push(figure("room for", `${status.capacity.recommended_max_concurrent} at once`));
  if (status.disk) figures.splice(3, 0, figure("disk", `${status.disk.free_mb} MB free`));
  $("figures").replaceChildren(...figures);
  const problems = [...status.degraded, ...status.configuration_problems, ...status.sandbox.missing];
  if (status.kept_worktrees.length) problems.push(`Work that was never pushed is kept of: ${status.kept_worktrees.join(", ")}`);
  $("problems").replaceChildren(...problems.map((problem) => element("li", problem)));
  sample("workers", status.workers.active, status.workers.max);
  sample("memory", used, status.memory.total_mb);
}

function sample(name, value, most) {
  const values = samples[name];
  values.push(most ? value / most : 0);
  if (values.length > mostSamples) values.shift();
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const x = (index) => (values.length === 1 ? 240 : (index * 240) / (values.length - 1));
  const points = values.length === 1 ? [values[0], values[0]] : values;
  line.setAttribute("points", points.map((share, index) => `${values.length === 1 ? index * 240 : x(index)},${58 - share * 54}`).join(" "));
  $(`${name}-chart`).replaceChildren(line);
  $(`${name}-chart`).setAttribute("aria-label", `${name} over time, now ${value} of ${most}`);
}

function duration(minutes) {
  const whole = Math.floor(minutes);
  return whole >= 60 ? `${Math.floor(whole / 60)} h ${whole % 60} min` : `${whole} min`;
}

let isConnected = true;
function connection(isThere) {
  if (isThere === isConnected) return;
  isConnected = isThere;
  $("connection").hidden = isThere;
  $("connection").textContent = isThere ? "" : "The connection to the node is lost. Trying again…";
  if (isThere && token.get()) refresh();
}

async function watchStatus() {
  for (;;) {
    try {
      showStatus(await ask("/status"));
      connection(true);
    } catch (error) {
      connection(error instanceof Refusal);
    }
    await new Promise((resolve) => setTimeout(resolve, statusInterval));
  }
}

// ---- tasks ----

function taskCell(id) {
  const cell = element("td");
  const button = element("button", id);
  button.type = "button";
  button.addEventListener("click", () => openTask(id, connection));
  cell.append(button);
  return cell;
}

function whatCell(task) {
  const cell = element("td");
  let link;
  try {
    link = new URL(task.pull_request);
  } catch {}
  if (link && /^https?:$/.test(link.protocol)) {
    const anchor = element("a", task.pull_request);
    anchor.href = link.href;
    anchor.rel = "noreferrer noopener";
    cell.append(anchor);
  } else cell.textContent = task.reason;
  return cell;
}

function activeRow(task) {
  const row = element("tr");
  const usage = task.usage;
  row.append(
    taskCell(task.task_id), element("td", task.repo), element("td", task.state, task.state),
    element("td", duration(task.elapsed_minutes)), element("td", String(task.attempt)),
    element("td", task.memory_mb === undefined ? "" : `${task.memory_mb} MB`),
    element("td", usage ? String(usage.input_tokens + usage.output_tokens) : ""),
    element("td", usage?.cost_usd ? `$${usage.cost_usd.toFixed(2)}` : ""), whatCell(task),
  );
  return row;
}

/** Replaces only the rows that differ, so that nothing flickers and the focus stays. */
function showRows(body, tasks, makeRow) {
  const old = new Map([...body.children].map((row) => [row.dataset.task, row]));
  for (const [index, task] of tasks.entries()) {
    let row = makeRow(task);
    row.dataset.task = task.task_id;
    row.dataset.seen = JSON.stringify(task);
    const before = old.get(task.task_id);
    if (before?.dataset.seen === row.dataset.seen) row = before;
    else if (before) {
      const hadFocus = before.contains(document.activeElement);
      before.replaceWith(row);
      if (hadFocus) row.querySelector("button").focus();
    }
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
    old.delete(task.task_id);
  }
  for (const row of old.values()) if (row.isConnected) row.remove();
}

async function showActive() {
  const { workers } = await ask("/workers");
  showRows($("active"), workers, activeRow);
  $("no-active").hidden = workers.length > 0;
}

// ---- pulse and fleet ----

async function showPulse() {
  const pulse = await ask("/pulse");
  const times = [pulse.last_round && `last round ${new Date(pulse.last_round).toLocaleTimeString()}`, pulse.next_round && `next ${new Date(pulse.next_round).toLocaleTimeString()}`];
  const left = pulse.requests_left === undefined ? "" : `${pulse.requests_left} requests left`;
  $("pulse-state").textContent = [pulse.enabled ? "on" : "off", ...times, left, ...pulse.claims.map((claim) => `${claim.issue} claimed`)].filter(Boolean).join(", ");
  $("fleet").replaceChildren(...pulse.nodes.map((node) => element("li", `${node.name}: ${node.free} of ${node.slots} slots free`)));
  $("pulse-problems").replaceChildren(...pulse.problems.map((problem) => element("li", problem)));
  $("decisions").replaceChildren(
    ...pulse.decisions.map((decision) => {
      const row = element("tr");
      row.append(...[`${decision.repo}#${decision.number}`, decision.score, decision.verdict, decision.reason, decision.title].map((words) => element("td", String(words))));
      return row;
    }),
  );
  $("pulse").hidden = !pulse.enabled && !pulse.decisions.length;
}

// ---- history ----

let next;

function pastRow(task) {
  const row = element("tr");
  row.append(
    taskCell(task.task_id), element("td", task.repo), element("td", task.state, task.state), element("td", task.outcome ?? ""),
    element("td", new Date(task.start_time ?? task.created_at).toLocaleString()), element("td", duration(task.elapsed_minutes ?? 0)), whatCell(task),
  );
  return row;
}

async function showHistory(isMore) {
  const query = new URLSearchParams({ limit: "20" });
  if ($("filter-state").value) query.set("state", $("filter-state").value);
  if ($("filter-repo").value.trim()) query.set("repo", $("filter-repo").value.trim());
  if (isMore && next) query.set("before", next);
  try {
    const page = await ask(`/tasks?${query}`);
    next = page.next;
    $("more").hidden = !next;
    $("filter-problem").textContent = "";
    if (isMore) $("past").append(...page.tasks.map(pastRow));
    else showRows($("past"), page.tasks, pastRow);
  } catch (error) {
    $("filter-problem").textContent = error.message;
  }
}

// ---- signed in ----

let session;

async function refresh() {
  try {
    showStatus(await ask("/status"));
    await showActive();
    await showHistory(false);
    await showPulse();
  } catch (error) {
    if (error.status === 401) signOut(error.message);
  }
}

function signIn() {
  session = new AbortController();
  for (const id of ["new-task", "tasks", "history", "sign-out"]) $(id).hidden = false;
  $("sign-in").hidden = true;
  refresh();
  const { signal } = session;
  // Elapsed time, memory and tokens change without a change of state.
  const timer = setInterval(() => showActive().catch(() => {}), statusInterval);
  signal.addEventListener("abort", () => clearInterval(timer));
  let isDue = false;
  follow("/events", {
    signal,
    onConnection: connection,
    onEvent: (event) => {
      if (event.name === "state") refreshTask(JSON.parse(event.data).task_id);
      // Many changes at once are one refresh.
      if (!isDue) setTimeout(() => { isDue = false; refresh(); }, 100);
      isDue = true;
      return false;
    },
  }).catch((error) => signOut(error.message));
}

function signOut(problem = "") {
  session?.abort();
  token.clear();
  closeTask();
  for (const id of ["new-task", "tasks", "history", "pulse", "sign-out"]) $(id).hidden = true;
  for (const id of ["active", "past", "decisions", "fleet", "pulse-problems"]) $(id).replaceChildren();
  $("sign-in").hidden = false;
  $("sign-in-problem").textContent = problem;
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  token.set($("token").value.trim());
  $("token").value = "";
  try {
    await ask("/workers");
    $("sign-in-problem").textContent = "";
    signIn();
  } catch (error) {
    token.clear();
    $("sign-in-problem").textContent = error.message;
  }
});
$("sign-out").addEventListener("click", () => signOut());

$("dispatch").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  for (const problem of form.querySelectorAll(".problem")) problem.textContent = "";
  const body = Object.fromEntries([...new FormData(form)].filter(([, value]) => value.trim() !== ""));
  try {
    const task = await ask("/dispatch", { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
    for (const name of ["prompt", "task_id"]) form.elements[name].value = "";
    await refresh();
    openTask(task.task_id, connection);
  } catch (error) {
    const place = form.querySelector(`[data-field="${CSS.escape(error.field ?? "")}"]`) ?? $("dispatch-problem");
    place.textContent = error.message;
    if (error.field) form.elements[error.field]?.focus();
  }
});

$("cancel").addEventListener("click", () => {
  $("confirm-text").textContent = `Cancel ${openID()}? Its processes are ended; what it pushed stays.`;
  $("confirm").returnValue = "no";
  $("confirm").showModal();
});
$("confirm").addEventListener("close", async () => {
  const id = openID();
  if ($("confirm").returnValue !== "yes" || !id) return;
  try {
    await ask(`/workers/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    $("task-facts").textContent = error.message;
  }
  refreshTask(id);
});
$("close").addEventListener("click", closeTask);
$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  showHistory(false);
});
$("more").addEventListener("click", () => showHistory(true));
$("filter-state").append(...states.map((state) => element("option", state)));

watchStatus();
if (token.get()) signIn();
