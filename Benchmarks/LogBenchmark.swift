import CSystem
import Glibc
import Supervision
import TestSupport

/// The redactor alone, and a node that drains what its workers flood it with: ring, file and redaction on.
func benchmarkLogs(_ table: Table) throws {
    benchmarkRedactor(table)
    try benchmarkFollowers(table)
    let floods = [
        ("short lines", "yes 'step 12345: a line of the usual length, as agents print them'"),
        ("1 MB lines", "head -c 1000000 /dev/zero | tr '\\0' x > line; echo >> line; while :; do cat line; done"),
        ("binary", "cat /dev/zero"),
    ]
    for (name, flood) in floods {
        for workers in [1, 32] { try benchmarkFlood(table, "\(name), \(workers) workers", flood, workers) }
    }
}

/// A thousand who follow one log over server-sent events, all of whom must get each line; and what the worker notices of it.
private func benchmarkFollowers(_ table: Table) throws {
    let node = try TestNode(
        agent: "cat > /dev/null; echo ready; while [ ! -e go ]; do sleep 0.05; done; seq 1 2000; echo TASK_COMPLETE")
    try node.makeRepository("o/r")
    for count in [0, 1000] {
        try node.start()
        let id = "followed-\(count)"
        _ = try node.dispatch(id)
        _ = try node.awaitLog(id, "ready")
        let followers = try (0..<count).map { _ in try TestConnection(port: node.port) }
        for follower in followers {
            follower.send(
                "GET /workers/\(id)/logs HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer \(node.token)\r\n\r\n"
            )
        }
        for follower in followers { _ = try follower.readHead() }
        let cpu = cpuSeconds(of: node.pid)
        let began = cs_monotonic_ns()
        try Files.replace(node.data + "/workspace/tasks/\(id)/worktree/go", with: [])
        _ = try node.followToEnd(id)
        table.add(
            "logs", "2,000 lines with \(count) followers: to the task's end", Double(cs_monotonic_ns() - began) / 1e6,
            "ms")
        var complete = 0
        for follower in followers {
            var last: [UInt8] = []
            while let chunk = follower.readChunk(), !chunk.isEmpty { last = Array((last + chunk).suffix(400)) }
            if String(decoding: last, as: UTF8.self).contains("event: end") { complete += 1 }
        }
        table.add("logs", "\(count) followers: got the end", Double(complete), "")
        table.add("logs", "\(count) followers: CPU of the node", (cpuSeconds(of: node.pid) - cpu) * 1000, "ms")
        table.add("logs", "\(count) followers: RSS", Double(memory(of: node.pid, "VmRSS")), "kB")
        node.stop()
    }
}

private func benchmarkRedactor(_ table: Table) {
    let secrets = SecretSet([
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz", "sk-ant-REDACTED",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ])
    let line = Array(
        "12:00:01 INFO step 12345: reading Sources/Server/HTTP/Parser.swift, 338 lines; github.com/o/r\n".utf8)
    let piece = Array((0..<700).flatMap { _ in line }.prefix(64 << 10))
    var redactor = Redactor(secrets)
    let rounds = 4096
    let began = cs_monotonic_ns()
    var kept = 0
    for _ in 0..<rounds { kept += redactor.redact(piece).count }
    let seconds = Double(cs_monotonic_ns() - began) / 1e9
    precondition(kept > 0)
    table.add("logs", "redactor, one core", Double(rounds * piece.count) / 1e6 / seconds, "MB/s")
}

private func benchmarkFlood(_ table: Table, _ name: String, _ flood: String, _ workers: Int) throws {
    let node = try TestNode(
        agent: "cat > /dev/null; \(flood)",
        settings: #""worker": {"max_concurrent": 64, "ram_per_worker_mb": 1, "cancel_grace_seconds": 0}"#)
    node.environment["GH_TOKEN"] = "ghp_0123456789abcdefghijklmnopqrstuvwxyz"
    try node.makeRepository("o/r")
    try node.start()
    for number in 0..<workers { _ = try node.dispatch("flood-\(number)") }
    _ = try TestEnvironment.eventually { try received(node) > 0 }
    let before = try received(node)
    let cpu = cpuSeconds(of: node.pid)
    let began = cs_monotonic_ns()
    var latencies: [Double] = []
    while cs_monotonic_ns() - began < 5_000_000_000 {
        let asked = cs_monotonic_ns()
        _ = try node.request("GET", "/health")
        latencies.append(Double(cs_monotonic_ns() - asked) / 1e6)
        poll(nil, 0, 10)
    }
    let seconds = Double(cs_monotonic_ns() - began) / 1e9
    let drained = Double(try received(node) - before) / 1e6
    table.add("logs", "\(name): drained", drained / seconds, "MB/s")
    table.add("logs", "\(name): drained per CPU second of the node", drained / (cpuSeconds(of: node.pid) - cpu), "MB")
    table.add("logs", "\(name): RSS", Double(memory(of: node.pid, "VmRSS")), "kB")
    table.add("logs", "\(name): /health p99", percentile(latencies, 0.99), "ms")
    for number in 0..<workers { _ = try node.request("DELETE", "/workers/flood-\(number)") }
}

private func received(_ node: TestNode) throws -> Int {
    let text = try node.request("GET", "/metrics").body
    let line = text.split(separator: "\n").first { $0.hasPrefix("aidevops_log_received_bytes_total ") }
    return line.flatMap { Int($0.split(separator: " ")[1]) } ?? 0
}
