import CSystem
import Glibc
import Supervision
import TestSupport

/// CPU time of the node per request, its memory, and latency, over connections that are kept.
func benchmarkHTTP(_ table: Table) throws {
    let node = try TestNode(agent: "true")
    try node.start()
    table.add("http", "idle RSS", Double(memory(of: node.pid, "VmRSS")), "kB")
    for (path, requests) in [("/health", 50_000), ("/status", 5_000)] {
        for connections in [1, 64] {
            let before = cpuSeconds(of: node.pid)
            let latencies = try load(node.port, path, connections: connections, requests: requests)
            let cpu = cpuSeconds(of: node.pid) - before
            let name = "\(path) over \(connections) connections"
            table.add("http", "\(name): CPU per request", cpu / Double(requests) * 1e6, "µs")
            table.add("http", "\(name): p50", percentile(latencies, 0.5), "µs")
            table.add("http", "\(name): p99", percentile(latencies, 0.99), "µs")
        }
    }
    for peer in Peer.all() {
        let (requests, before) = (50_000, cpuSeconds(of: peer.worker))
        let latencies = try load(peer.port, "/health", connections: 64, requests: requests)
        let name = "\(peer.name), /health over 64 connections"
        table.add(
            "http", "\(name): CPU per request", (cpuSeconds(of: peer.worker) - before) / Double(requests) * 1e6, "µs")
        table.add("http", "\(name): p99", percentile(latencies, 0.99), "µs")
        table.add("http", "\(name): RSS", Double(memory(of: peer.worker, "VmRSS")), "kB")
    }
    table.add("http", "RSS afterwards", Double(memory(of: node.pid, "VmRSS")), "kB")
}

/// Keeps one request under way on each connection. Latencies in µs.
private func load(_ port: UInt16, _ path: String, connections: Int, requests: Int) throws -> [Double] {
    let request = "GET \(path) HTTP/1.1\r\nHost: localhost\r\n\r\n"
    let clients = try (0..<connections).map { _ in try TestConnection(port: port) }
    var sent = [Int64](repeating: 0, count: connections)
    var latencies: [Double] = []
    for _ in 0..<(requests / connections) {
        for (index, client) in clients.enumerated() {
            sent[index] = cs_monotonic_ns()
            client.send(request)
        }
        for (index, client) in clients.enumerated() {
            _ = try client.readAnswer()
            latencies.append(Double(cs_monotonic_ns() - sent[index]) / 1000)
        }
    }
    return latencies
}

/// A field of /proc/PID/status, in kB.
func memory(of pid: Int32, _ field: String) -> Int {
    let text = (try? Files.read("/proc/\(pid)/status", limit: 65536)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix(field + ":") }
    return line.flatMap { Int($0.filter(\.isNumber)) } ?? 0
}

/// User and system time of a process, from /proc/PID/stat.
func cpuSeconds(of pid: Int32) -> Double {
    let text = (try? Files.read("/proc/\(pid)/stat", limit: 4096)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    let fields = text.drop { $0 != ")" }.split(separator: " ")
    guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else { return 0 }
    return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
}
