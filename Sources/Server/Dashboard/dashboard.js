"use strict";

const refreshMilliseconds = 5000;

function show(status) {
  document.getElementById("state").textContent = `The node is ${status.status}.`;
  const figures = [
    ["Version", status.version],
    ["Up for", `${Math.floor(status.uptime_seconds / 60)} minutes`],
    ["Workers", `${status.workers.active} of ${status.workers.max}`],
    ["Queue", status.queue.length],
    ["Free memory", `${status.memory.available_mb} of ${status.memory.total_mb} MB`],
  ];
  document.getElementById("figures").replaceChildren(...figures.flatMap(([name, value]) => {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = value;
    return [term, detail];
  }));
  const problems = [...status.degraded, ...status.configuration_problems];
  document.getElementById("problems").replaceChildren(...problems.map((problem) => {
    const item = document.createElement("li");
    item.textContent = problem;
    return item;
  }));
}

async function refresh() {
  try {
    show(await (await fetch("/status")).json());
  } catch {
    document.getElementById("state").textContent = "The node can't be reached.";
  }
  setTimeout(refresh, refreshMilliseconds);
}

refresh();
