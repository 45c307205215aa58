import CSystem
import Glibc
import Supervision
import TestSupport

/// A stand-in of an agent, run as `Benchmarks agent MEGABYTES SECONDS`: memory that grows to its peak, bursts of CPU, output.
func actAsAgent(megabytes: Int, seconds: Int) -> Never {
    let steps = seconds * 10
    var memory: [[UInt8]] = []
    for step in 0..<steps {
        // The first third of its time it grows; then it works: a tenth of the time it computes, the rest it waits.
        while memory.count < megabytes * 3 * (step + 1) / steps, memory.count < megabytes {
            memory.append([UInt8](repeating: UInt8(truncatingIfNeeded: memory.count | 1), count: 1 << 20))
        }
        let busyUntil = cs_monotonic_ns() + 10_000_000
        var sum = 0
        while cs_monotonic_ns() < busyUntil { sum &+= memory.isEmpty ? 1 : Int(memory[sum & 0xff % memory.count][0]) }
        if step % 10 == 0 { print("step \(step) \(sum & 1)") }
        fflush(nil)
        poll(nil, 0, 90)
    }
    print("TASK_COMPLETE")
    exit(0)
}

/// Finds the `worker.max_concurrent` that suits a machine: stand-ins of agents, more and more at once, until memory or CPU binds.
/// - Parameters:
///   - memoryMB: the limit to plan for; nil: what is free here.
///   - applyTo: a data folder, into whose worker.json the result is written.
func benchmarkCapacity(_ table: Table, memoryMB: Int?, agentMB: Int, applyTo: String?) throws {
    let seconds = 6
    let node = try TestNode(agent: "")
    guard let benchmarks = Files.realPath("/proc/self/exe") else { return }
    try node.writeConfiguration(
        """
        {"dispatch": {"auth_token": "\(node.token)"}, "git": {"base_url": "file://\(node.folder.path)/remote"},
         "worker": {"max_concurrent": 1000, "ram_per_worker_mb": \(agentMB)},
         "agent": {"preset": "custom", "command": ["\(benchmarks)", "agent", "\(agentMB)", "\(seconds)"]}}
        """)
    try node.makeRepository("o/r")
    try addFile(to: node, megabytes: 20)
    try node.start()
    let limit = memoryMB ?? MemoryReading.now().availableMB
    var alone = 0.0
    var peak = agentMB
    var best = 1
    var reason = "the machine has room for more"
    for count in [1, 2, 4, 8, 12, 16, 24, 32] {
        if count * peak > limit {
            reason = "memory binds: \(count) workers of \(peak) MB are more than \(limit) MB"
            break
        }
        let began = cs_monotonic_ns()
        for index in 0..<count { _ = try node.dispatch("c-\(count)-\(index)") }
        var durations: [Double] = []
        for index in 0..<count {
            _ = try node.followToEnd("c-\(count)-\(index)")
            durations.append(Double(cs_monotonic_ns() - began) / 1e9)
        }
        let peaks = try (0..<count).compactMap { try peakMB(of: node.worker("c-\(count)-\($0)")) }
        peak = max(peak, peaks.max() ?? 0)
        let took = percentile(durations, 0.5)
        if count == 1 { alone = took }
        table.add("capacity", "\(count) at once: a task takes", took, "s")
        table.add("capacity", "\(count) at once: peak memory of a worker", Double(peaks.max() ?? 0), "MB")
        if took > 1.5 * alone {
            reason = "CPU binds: with \(count) at once a task takes \(Int(100 * took / alone))% of its time alone"
            break
        }
        best = count
    }
    if best * 2 * peak > limit { best = max(best, min(limit / peak, best * 2)) }
    table.add("capacity", "recommended worker.max_concurrent (\(reason))", Double(best), "")
    for gigabytes in [2, 4, 8, 16] {
        let fits = max(1, (gigabytes * 1024 - 64) / peak)
        table.add("capacity", "\(gigabytes) GB: workers of \(peak) MB that fit", Double(fits), "")
    }
    guard let applyTo else { return }
    let command = Command(
        path: TestEnvironment.executable,
        arguments: ["aidevops-worker", "config", "set", "worker.max_concurrent", "\(best)", "--data-dir", applyTo],
        environment: TestEnvironment.variables)
    let result = try command.run()
    guard result.succeeded else { throw SystemError(result.errorText, errno: EINVAL) }
    print("worker.max_concurrent is \(best) in \(applyTo)/config/worker.json")
}

private func peakMB(of worker: String) -> Int? {
    worker.range(of: #""peak_memory_mb":"#).flatMap { Int(worker[$0...].prefix { $0.isNumber }) }
}

/// Makes the clone as large as a real one.
private func addFile(to node: TestNode, megabytes: Int) throws {
    let work = node.folder.path + "/seed-o-r"
    try TestEnvironment.run("sh", ["-c", "head -c \(megabytes << 20) /dev/urandom > \(work)/large"])
    try TestEnvironment.run("git", ["add", "."], in: work)
    try TestEnvironment.run("git", ["commit", "--quiet", "-m", "Large"], in: work)
    try TestEnvironment.run("git", ["push", "--quiet", node.repository("o/r"), "main"], in: work)
}
