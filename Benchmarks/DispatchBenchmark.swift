import CSystem
import Supervision
import TestSupport

/// From POST /dispatch to its 202 (the record is on disk then), and to the agent's exec with a warm cache.
func benchmarkDispatch(_ table: Table) throws {
    let node = try TestNode(
        agent: "cat > /dev/null; echo TASK_COMPLETE", settings: #""worker": {"max_concurrent": 1000}"#)
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
    table.add("dispatch", "to 202: p50", percentile(toAnswer, 0.5), "ms")
    table.add("dispatch", "to 202: p99", percentile(toAnswer, 0.99), "ms")
    table.add("dispatch", "to the agent's exec, warm cache: p50", percentile(toExec, 0.5), "ms")
    table.add("dispatch", "to the agent's exec, warm cache: p99", percentile(toExec, 0.99), "ms")
    let waiting = try node.dispatch("idle")
    if waiting.status == 202 {
        table.add("dispatch", "server RSS after \(toAnswer.count) tasks", Double(memory(of: node.pid, "VmRSS")), "kB")
    }
}
