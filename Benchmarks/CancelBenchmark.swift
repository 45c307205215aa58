import CSystem
import Supervision
import TestSupport

/// From DELETE until nothing of the task is left, for trees of 1, 10 and 100 processes that obey TERM, and for some that don't.
func benchmarkCancel(_ table: Table) throws {
    for (name, trap) in [("obeying TERM", ""), ("ignoring it, grace 1 s", "trap '' TERM; ")] {
        for count in [1, 10, 100] {
            let node = try TestNode(
                agent:
                    "cat > /dev/null; \(trap)i=1; while [ $i -lt \(count) ]; do i=$((i+1)); setsid sleep 600 & done; echo ready; wait; sleep 600",
                settings: #""worker": {"cancel_grace_seconds": 1}"#)
            try node.makeRepository("o/r")
            try node.start()
            var times: [Double] = []
            for round in 0..<5 {
                _ = try node.dispatch("tree-\(round)")
                guard try node.awaitLog("tree-\(round)", "ready") else { continue }
                let began = cs_monotonic_ns()
                _ = try node.request("DELETE", "/workers/tree-\(round)")
                _ = try node.followToEnd("tree-\(round)")
                times.append(Double(cs_monotonic_ns() - began) / 1e6)
            }
            table.add("cancel", "\(count) processes \(name): p50", percentile(times, 0.5), "ms")
            table.add("cancel", "\(count) processes \(name): left", Double(node.processes().count), "")
        }
    }
}
