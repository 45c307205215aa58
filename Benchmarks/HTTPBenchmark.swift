import CSystem
import Glibc
import Supervision
import TestSupport

/// A server under load: what is asked, and whom.
private struct Target {
    var name: String
    var port: UInt16
    var pid: Int32
    var token: String?
}

/// CPU time of the node per request, its memory, requests per second and latency, over connections that are kept; side by side with a
/// node done the straightforward way in Node, and with nginx as the limit, where this machine has them.
func benchmarkHTTP(_ table: Table) throws {
    let node = try TestNode(
        agent: "cat > /dev/null; seq -f 'line %g of a log that is as long as most' 1 600; echo ready; sleep 600",
        settings: #""worker": {"max_concurrent": 200, "ram_per_worker_mb": 1, "cancel_grace_seconds": 0}"#)
    try node.makeRepository("o/r")
    try node.start()
    table.add("http", "idle RSS", Double(memory(of: node.pid, "VmRSS")), "kB")
    let own = Target(name: "this", port: node.port, pid: node.pid, token: node.token)
    let peers = try Peer.all(logLines: 600)
    defer { withExtendedLifetime(peers) {} }  // they end with the last who knows them
    let others = peers.map { Target(name: $0.name, port: $0.port, pid: $0.worker, token: nil) }
    let everybody = [own] + others
    for connections in [1, 64, 1000] {
        for target in everybody { try measure(table, target, "/health", connections, requests: 40_000) }
    }
    for target in everybody { measureWithWrk(table, target) }
    for target in everybody where !target.name.hasPrefix("nginx") {
        try measure(table, target, "/status", 64, requests: target.name == "this" ? 10_000 : 300)
    }
    _ = try node.dispatch("task-0")
    _ = try node.awaitLog("task-0", "ready")
    for target in everybody where !target.name.hasPrefix("nginx") {
        try measure(
            table, target, "/workers/task-0/logs", 64, requests: target.name == "this" ? 20_000 : 1000)
    }
    for workers in [1, 10, 100] {
        for number in 0..<workers { _ = try node.dispatch("task-\(number)") }
        for number in 0..<workers { _ = try node.awaitLog("task-\(number)", "ready") }
        try measure(table, own, "/workers", 64, requests: 5000, note: ", \(workers) workers")
    }
    table.add("http", "RSS afterwards", Double(memory(of: node.pid, "VmRSS")), "kB")
}

/// The same by another's load generator, where this machine has it.
private func measureWithWrk(_ table: Table, _ target: Target) {
    let arguments = ["-t1", "-c64", "-d3s", "http://127.0.0.1:\(target.port)/health"]
    let before = cpuSeconds(of: target.pid)
    guard let output = try? TestEnvironment.run("wrk", arguments),
        let rate = output.split(separator: "\n").first(where: { $0.contains("Requests/sec:") })?.split(separator: " ")
            .last,
        let perSecond = Double(rate)
    else { return }
    let cpu = cpuSeconds(of: target.pid) - before
    table.add("http", "\(target.name): /health by wrk, 64 connections: requests per second", perSecond, "")
    table.add(
        "http", "\(target.name): /health by wrk, 64 connections: CPU per request", cpu / (perSecond * 3) * 1e6, "µs")
}

private func measure(
    _ table: Table, _ target: Target, _ path: String, _ connections: Int, requests: Int, note: String = ""
) throws {
    let before = cpuSeconds(of: target.pid) + childSeconds(of: target.pid)
    let result = try LoadGenerator(port: target.port, path: path, token: target.token).run(
        connections: connections, requests: requests)
    let cpu = cpuSeconds(of: target.pid) + childSeconds(of: target.pid) - before
    let name = "\(target.name): \(path), \(connections) connections\(note)"
    table.add("http", "\(name): CPU per request", cpu / Double(result.latencies.count) * 1e6, "µs")
    table.add("http", "\(name): requests per second", result.requestsPerSecond, "")
    table.add("http", "\(name): p50", percentile(result.latencies, 0.5), "µs")
    table.add("http", "\(name): p99", percentile(result.latencies, 0.99), "µs")
    table.add("http", "\(name): RSS", Double(memory(of: target.pid, "VmRSS")), "kB")
}

/// A field of /proc/PID/status, in kB.
func memory(of pid: Int32, _ field: String) -> Int {
    let text = (try? Files.read("/proc/\(pid)/status", limit: 65536)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix(field + ":") }
    return line.flatMap { Int($0.filter(\.isNumber)) } ?? 0
}

/// User and system time of a process, from /proc/PID/stat.
func cpuSeconds(of pid: Int32) -> Double { seconds(of: pid, fields: 12) }

/// That of the children that it has waited for.
private func childSeconds(of pid: Int32) -> Double { seconds(of: pid, fields: 14) }

private func seconds(of pid: Int32, fields first: Int) -> Double {
    let text = (try? Files.read("/proc/\(pid)/stat", limit: 4096)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    let fields = text.drop { $0 != ")" }.split(separator: " ")
    guard fields.count > first + 1, let user = Double(fields[first]), let system = Double(fields[first + 1]) else {
        return 0
    }
    return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
}
