package import FoundationEssentials

/// What stays in memory of a task that has ended.
package struct TaskSummary: Sendable, Equatable {
    package var id: String
    package var repo: String
    package var state: TaskState
    package var outcome: TaskOutcome?
    package var reason: String
    package var createdAt: Date
    package var endedAt: Date?
    package var attempts: Int
    package var pullRequest: String?
    package var usage: Usage?
    /// The task whose folder it worked in.
    var folderOwner: String
    var hasUnpushedWork: Bool
    var worktreeRemoved: Bool

    package init(_ record: TaskRecord) {
        id = record.id
        repo = record.spec.repo
        state = record.state
        outcome = record.outcome
        reason = record.reason
        createdAt = record.createdAt
        endedAt = record.endedAt
        attempts = record.attempts.count
        pullRequest = record.pullRequest
        usage = record.usage
        folderOwner = record.spec.continueTask ?? record.id
        hasUnpushedWork = record.work.map { $0.unpushedCommits > 0 || $0.hasUncommittedChanges } ?? false
        worktreeRemoved = record.worktreeRemoved
    }
}

/// A place in the history, which is ordered by creation and id, the newest first.
package struct TaskCursor: Sendable, Equatable, Comparable {
    private let createdAt: Double
    private let id: String

    package init(_ summary: TaskSummary) {
        createdAt = summary.createdAt.timeIntervalSince1970
        id = summary.id
    }

    /// Nil for a text that no cursor gave.
    package init?(_ text: String) {
        let parts = text.split(separator: ":", maxSplits: 1)
        guard parts.count == 2, let time = UInt64(parts[0], radix: 16) else { return nil }
        createdAt = Double(bitPattern: time)
        id = String(parts[1])
    }

    package var text: String { String(createdAt.bitPattern, radix: 16) + ":" + id }

    package static func < (left: TaskCursor, right: TaskCursor) -> Bool {
        (left.createdAt, left.id) < (right.createdAt, right.id)
    }
}

/// Which tasks of the history are asked for.
package struct TaskFilter: Sendable {
    package var state: TaskState?
    package var repo: String?
    package var before: TaskCursor?

    package init() {}

    func matches(_ summary: TaskSummary) -> Bool {
        if let state, summary.state != state { return false }
        if let repo, summary.repo.lowercased() != repo.lowercased() { return false }
        return before.map { TaskCursor(summary) < $0 } ?? true
    }
}

/// The node at one instant.
package struct NodeStatus: Sendable {
    package var uptime: Duration
    package var active: Int
    package var max: Int
    package var queued: Int
    package var memory: MemoryReading
    package var isDraining: Bool
    /// What keeps the node from working as it should, in sentences.
    package var degraded: [String]
    /// Nil until it was first measured.
    package var disk: DiskReading?
    /// Ended tasks whose worktrees are kept beyond their time, because they hold work that was never pushed.
    package var keptWorktrees: [String]
    package var sandbox: SandboxReport
    package var advice: CapacityAdvice?
}

/// Where the lines of a log come from.
package struct LogSnapshot: Sendable {
    package var lines: LogBuffer.Lines
    package var record: TaskRecord
}

extension Supervisor {
    package func status() async -> NodeStatus {
        let active = occupied
        let memory = MemoryReading.now()
        return NodeStatus(
            uptime: .seconds(services.ambient.now().timeIntervalSince(startedAt)), active: active,
            max: settings.maxConcurrent, queued: queue.count, memory: memory, isDraining: isDraining,
            degraded: (sandbox.refusal.map { [$0] } ?? []) + (await storageFailures()), disk: disk,
            keptWorktrees: keptWorktrees, sandbox: sandbox,
            advice: CapacityAdvice(
                peaksMB: peaksMB, totalMB: memory.totalMB, reserveMB: settings.memoryReserveMB))
    }

    var sandbox: SandboxReport {
        SandboxReport(
            settings.sandbox, landlockVersion: Ruleset.version, controlGroups: services.controlGroups.status)
    }

    private func storageFailures() async -> [String] {
        var failures: Set<String> = storageFault.map { ["storage: \($0)"] } ?? []
        for worker in workers.values {
            if let failure = await worker.storageFailure { failures.insert("storage: \(failure)") }
        }
        return failures.sorted() + corruptRecords.map { "a task record can't be read and was set aside: tasks/\($0)" }
    }

    /// The tasks that haven't ended, the oldest first.
    package func active() -> [TaskRecord] {
        records.values.filter { !$0.state.isEnded }.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }
    }

    /// Tasks of all states, the newest first.
    package func tasks(_ filter: TaskFilter, limit: Int) -> [TaskSummary] {
        let all = history.values.filter { records[$0.id] == nil } + records.values.map(TaskSummary.init)
        return Array(all.filter(filter.matches).sorted { TaskCursor($1) < TaskCursor($0) }.prefix(limit))
    }

    /// The place of a task in the queue, from 1 on.
    package func position(of id: String) -> Int? { queue.firstIndex(of: id).map { $0 + 1 } }

    package func record(of id: String) async -> TaskRecord? {
        if let worker = workers[id] { return await worker.record }
        return await services.store.load(id)
    }

    package func worker(_ id: String) -> WorkerActor? { workers[id] }

    /// The most bytes of a log that one answer holds.
    package static let maxLogBytes = 8 << 20

    /// The newest lines of a task's log, from memory where they are, else from the file; nil for an unknown task.
    package func log(of id: String, lines limit: Int) async throws(SystemError) -> LogSnapshot? {
        guard let record = await record(of: id) else { return nil }
        if let worker = workers[id] {
            let lines = await worker.lastLines(limit)
            if lines.count == limit || lines.first == 1 { return LogSnapshot(lines: lines, record: record) }
        }
        let file = LogFile(path: paths.log(of: id), limit: settings.logFileLimit)
        let (bytes, count) = try await services.logLane.run { () throws(SystemError) in
            try file.lastLines(limit, byteLimit: Supervisor.maxLogBytes)
        }
        let next = max(record.logLines, UInt64(count)) + 1
        return LogSnapshot(
            lines: LogBuffer.Lines(first: next - UInt64(count), bytes: bytes, count: count), record: record)
    }
}
