import CSystem
import FoundationEssentials
import Supervision
import TestSupport

/// From the start of the program to its listening, with records of ended tasks on disk.
func benchmarkRecovery(_ table: Table) throws {
    for count in [100, 1000, 10_000, 100_000] {
        let node = try TestNode(agent: "true")
        try Files.makeFolders(node.data + "/tasks")
        for number in 0..<count {
            let spec = TaskSpec(id: "task-\(number)", repo: "o/r", prompt: "Do it.", model: "m", branch: "main")
            var record = TaskRecord(spec: spec, state: .succeeded, reason: "done", createdAt: Date())
            record.endedAt = record.createdAt
            record.attempts = [Attempt(number: 1, startedAt: record.createdAt)]
            _ = LogFile(path: node.data + "/tasks/task-\(number).json", limit: .max).append(record.encoded())
        }
        let began = cs_monotonic_ns()
        try node.start()
        table.add("recovery", "\(count) records", Double(cs_monotonic_ns() - began) / 1e6, "ms")
        table.add("recovery", "\(count) records: RSS", Double(memory(of: node.pid, "VmRSS")), "kB")
        node.stop()
    }
}
