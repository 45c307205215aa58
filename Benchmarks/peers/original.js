// A worker node done the straightforward way, as the peer of the benchmarks: Node's http, a Map of workers, `ps` for the status and
// `tail` for logs. Usage: node original.js LOGFILE WORKERS
const http = require("http");
const { execFile } = require("child_process");

const [logFile, count] = process.argv.slice(2);
const workers = new Map();
for (let i = 0; i < Number(count); i++) workers.set(`task-${i}`, { task_id: `task-${i}`, repo: "o/r", pid: process.pid, start_time: new Date() });

const json = (response, body) => {
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(body));
};

http
  .createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/health") return json(response, { status: "ok" });
    if (pathname === "/status")
      return execFile("ps", ["-eo", "pid,rss"], (error, output) =>
        json(response, { status: "ok", workers: { active: workers.size }, processes: output.split("\n").length }));
    if (pathname === "/workers")
      return json(response, { workers: [...workers.values()].map((worker) => ({ ...worker, elapsed_minutes: Math.floor((Date.now() - worker.start_time) / 60000) })) });
    if (pathname.endsWith("/logs"))
      return execFile("tail", ["-n", "500", logFile], { maxBuffer: 1 << 24 }, (error, output) => {
        response.setHeader("Content-Type", "text/plain");
        response.end(output);
      });
    response.statusCode = 404;
    response.end();
  })
  .listen(0, "127.0.0.1", function () {
    console.log(`port ${this.address().port}`);
  });
