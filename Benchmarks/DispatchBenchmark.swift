import CSystem
import Supervision
import TestSupport

/// From POST /dispatch to its 202 (the record is on disk then), and to the agent's exec with a warm cache; with the sandbox and
/// without.
func benchmarkDispatch(_ table: Table) throws {
    for mode in ["best-effort", "off"] { try benchmarkDispatch(table, sandbox: mode) }
}

private func benchmarkDispatch(_ table: Table, sandbox: String) throws {
    let node = try TestNode(
        agent: "cat > /dev/null; echo TASK_COMPLETE",
        settings: #""worker": {"max_concurrent": 1000}, "sandbox": {"mode": "\#(sandbox)"}"#)
    try node.makeRepository("o/r")
    try node.start()
    _ = try node.dispatch("warm")
    _ = try node.followToEnd("warm")
    var toAnswer: [Double] = []
    var toExec: [Double] = []
    for number in 0..<50 {
        let began = cs_monotonic_ns()
        guard try node.dispatch("task-\(number)").status == 202 else { continue }
        toAnswer.append(Double(cs_monotonic_ns() - began) / 1e6)
        if try node.awaitLog("task-\(number)", "worker: starting the agent") {
            toExec.append(Double(cs_monotonic_ns() - began) / 1e6)
        }
        _ = try node.followToEnd("task-\(number)")
    }
    let name = "sandbox \(sandbox)"
    for (share, percent) in [(0.5, "p50"), (0.99, "p99")] {
        table.add("dispatch", "\(name), to 202: \(percent)", percentile(toAnswer, share), "ms")
        table.add("dispatch", "\(name), to the agent's exec, warm cache: \(percent)", percentile(toExec, share), "ms")
    }
    table.add(
        "dispatch", "\(name), server RSS after \(toAnswer.count) tasks", Double(memory(of: node.pid, "VmRSS")), "kB")
}
