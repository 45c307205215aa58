import CSystem
import Glibc
import Supervision
import TestSupport

/// What 1 to 500 workers cost the node: memory, CPU and descriptors of each, and how the cost grows.
func benchmarkScale(_ table: Table) throws {
    let kinds = [
        ("idle", "cat > /dev/null; echo ready; sleep 600", [1, 10, 100, 500]),
        ("chatty", "cat > /dev/null; echo ready; while :; do echo a line of output; sleep 0.1; done", [1, 10, 100]),
    ]
    for (kind, agent, counts) in kinds {
        var cost: [(count: Double, cpu: Double)] = []
        for count in counts {
            let node = try TestNode(
                agent: agent,
                settings: #""worker": {"max_concurrent": 1000, "ram_per_worker_mb": 0, "cancel_grace_seconds": 0}"#)
            try node.makeRepository("o/r")
            try node.start()
            _ = try node.dispatch("first")
            _ = try node.awaitLog("first", "ready")
            let base = memory(of: node.pid, "RssAnon")
            for number in 1..<max(2, count) where count > 1 { _ = try node.dispatch("w-\(number)") }
            for number in 1..<max(2, count) where count > 1 { _ = try node.awaitLog("w-\(number)", "ready") }
            let before = cpuSeconds(of: node.pid)
            poll(nil, 0, 5000)
            let cpu = (cpuSeconds(of: node.pid) - before) / 5
            let name = "\(count) \(kind) workers"
            table.add("scale", "\(name): RSS of the node", Double(memory(of: node.pid, "VmRSS")), "kB")
            if count > 1 {
                let each = Double(memory(of: node.pid, "RssAnon") - base) / Double(count - 1)
                table.add("scale", "\(name): memory of the node for each", each, "kB")
            }
            table.add("scale", "\(name): CPU of the node", cpu * 1000, "ms/s")
            let descriptors = ((try? Files.names(in: "/proc/\(node.pid)/fd")) ?? []).count
            table.add("scale", "\(name): descriptors of the node", Double(descriptors), "")
            cost.append((Double(count), max(cpu, 0.0005)))
        }
        table.add(
            "scale", "\(kind): CPU grows with the number to the power of", exponent(cost.map { ($0.count, $0.cpu) }), ""
        )
    }
}

/// The slope of the least-squares line through the logarithms.
private func exponent(_ points: [(x: Double, y: Double)]) -> Double {
    let logs = points.map { (x: log($0.x), y: log($0.y)) }
    let meanX = logs.map(\.x).reduce(0, +) / Double(logs.count)
    let meanY = logs.map(\.y).reduce(0, +) / Double(logs.count)
    let covariance = logs.map { ($0.x - meanX) * ($0.y - meanY) }.reduce(0, +)
    return covariance / logs.map { ($0.x - meanX) * ($0.x - meanX) }.reduce(0, +)
}
