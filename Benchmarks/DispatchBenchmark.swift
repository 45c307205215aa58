import CSystem
import Supervision
import TestSupport

/// From POST /dispatch to its 202 (the record is on disk then), to the agent's exec, and to its first line, with a warm cache: one at a
/// time with the sandbox and without, and many at once; on a disk, and in memory, where fsync costs nothing.
func benchmarkDispatch(_ table: Table) throws {
    for mode in ["best-effort", "off"] { try oneAtATime(table, sandbox: mode) }
    for (name, parent) in [("disk", "/tmp"), ("memory", "/dev/shm")] {
        for count in [1, 8, 64] { try manyAtOnce(table, name: name, folder: TemporaryFolder(in: parent), count: count) }
    }
}

private func oneAtATime(_ table: Table, sandbox: String) throws {
    let node = try TestNode(
        agent: "cat > /dev/null; echo first; echo TASK_COMPLETE",
        settings: #""worker": {"max_concurrent": 1000}, "sandbox": {"mode": "\#(sandbox)"}"#)
    try node.makeRepository("o/r")
    try node.start()
    _ = try node.dispatch("warm")
    _ = try node.followToEnd("warm")
    var toAnswer: [Double] = []
    var toExec: [Double] = []
    var toLine: [Double] = []
    for number in 0..<50 {
        let began = cs_monotonic_ns()
        guard try node.dispatch("task-\(number)").status == 202 else { continue }
        toAnswer.append(Double(cs_monotonic_ns() - began) / 1e6)
        if try node.awaitLog("task-\(number)", "worker: starting the agent") {
            toExec.append(Double(cs_monotonic_ns() - began) / 1e6)
        }
        if try node.awaitLog("task-\(number)", "first") { toLine.append(Double(cs_monotonic_ns() - began) / 1e6) }
        _ = try node.followToEnd("task-\(number)")
    }
    let steps = [("202", toAnswer), ("the agent's exec", toExec), ("its first line", toLine)]
    for (step, times) in steps {
        for (share, percent) in [(0.5, "p50"), (0.99, "p99")] {
            table.add("dispatch", "sandbox \(sandbox), to \(step): \(percent)", percentile(times, share), "ms")
        }
    }
}

/// All are sent before the first answer is read.
private func manyAtOnce(_ table: Table, name: String, folder: TemporaryFolder, count: Int) throws {
    let node = try TestNode(
        agent: "cat > /dev/null; sleep 60",
        settings: #""worker": {"max_concurrent": 1000, "ram_per_worker_mb": 1, "cancel_grace_seconds": 0}"#,
        folder: folder)
    try node.makeRepository("o/r")
    try node.start()
    var times: [Double] = []
    for round in 0..<max(1, 32 / count) {
        let connections = try (0..<count).map { _ in try TestConnection(port: node.port) }
        var sent: [Int64] = []
        for (index, connection) in connections.enumerated() {
            let body = #"{"repo": "o/r", "prompt": "x", "task_id": "t-\#(round)-\#(index)"}"#
            sent.append(cs_monotonic_ns())
            connection.send(
                "POST /dispatch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \(node.token)\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
            )
        }
        for (index, connection) in connections.enumerated() {
            guard try connection.readAnswer().status == 202 else { continue }
            times.append(Double(cs_monotonic_ns() - sent[index]) / 1e6)
        }
    }
    for (share, percent) in [(0.5, "p50"), (0.99, "p99")] {
        table.add("dispatch", "\(count) at once, on \(name), to 202: \(percent)", percentile(times, share), "ms")
    }
}
