import Supervision
import TestSupport

/// Mixed load for minutes: dispatch, follow, cancel, fetch, garbage. What a node leaks shows in its memory and descriptors.
func benchmarkSoak(_ table: Table, minutes: Int) throws {
    let node = try TestNode(
        agent:
            "cat > /dev/null; seq 1 200; case $AIDEVOPS_TASK_ID in *-cancel) echo ready; sleep 600;; esac; echo TASK_COMPLETE",
        settings:
            #""worker": {"max_concurrent": 8, "ram_per_worker_mb": 1, "cancel_grace_seconds": 1}, "retention": {"worktree_hours": 0}"#
    )
    try node.makeRepository("o/r")
    try node.start()
    let garbage = [
        "\u{16}\u{03}\u{01}", "GET / HTTP/9.9\r\n\r\n",
        "POST /dispatch HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "\r\n\r\n\r\n",
    ]
    let end = ContinuousClock.now + .seconds(minutes * 60)
    var rounds = 0
    while ContinuousClock.now < end {
        let id = "soak-\(rounds)"
        for suffix in ["", "-cancel"] { _ = try node.dispatch(id + suffix) }
        for path in ["/status", "/workers", "/tasks?limit=20", "/metrics", "/workers/\(id)/logs"] {
            _ = try node.request("GET", path)
        }
        if try node.awaitLog(id + "-cancel", "ready") { _ = try node.request("DELETE", "/workers/\(id)-cancel") }
        _ = try node.followToEnd(id)
        _ = try node.followToEnd(id + "-cancel")
        let rude = try TestConnection(port: node.port)
        rude.send(garbage[rounds % garbage.count])
        rude.finishSending()
        _ = rude.isClosedByServer()
        rounds += 1
        if rounds == 20 { report(table, node, "after 20 rounds") }
    }
    report(table, node, "after \(rounds) rounds")
}

private func report(_ table: Table, _ node: TestNode, _ moment: String) {
    table.add("soak", "RSS \(moment)", Double(memory(of: node.pid, "VmRSS")), "kB")
    let descriptors = ((try? Files.names(in: "/proc/\(node.pid)/fd")) ?? []).count
    table.add("soak", "descriptors \(moment)", Double(descriptors), "")
}
