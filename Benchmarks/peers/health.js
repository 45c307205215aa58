"use strict";
// The straightforward Node server of the same route, to compare with. Prints its port.
const http = require("node:http");
const server = http.createServer((request, response) => {
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ status: "ok" }));
});
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
