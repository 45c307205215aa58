import FoundationEssentials
import Supervision

/// Encodes answers.
enum JSON {
    static func encode(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.dateEncodingStrategy = .iso8601
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do { return Array(try encoder.encode(value)) } catch { preconditionFailure("plain values encode: \(error)") }
    }
}

/// An error's sentence and its details.
struct ErrorView: Encodable {
    var error: String
    var field: String?
    var task_id: String?
    var active: Int?
    var max: Int?
    var limit: Int?
    var available_mb: Int?
    var needed_mb: Int?

    init(_ error: String) { self.error = error }
}

struct HealthView: Encodable { let status = "ok" }

struct StatusView: Encodable {
    struct Workers: Encodable { var active, max, available: Int }
    struct Memory: Encodable { var total_mb, available_mb: Int }
    struct Queue: Encodable { var length: Int }
    struct Disk: Encodable { var free_mb, total_mb, workspace_mb, logs_mb: Int }

    /// How workers are held.
    struct Sandbox: Encodable {
        var mode: String
        var landlock_version: Int
        var active: [String]
        /// What the kernel or the configuration lacks, and what that means.
        var missing: [String]
    }

    /// What the node's own tasks tell of how many it can carry.
    struct Capacity: Encodable { var tasks, peak_memory_mb, recommended_max_concurrent: Int }

    var status: String
    var version: String
    var uptime_seconds: Int
    var workers: Workers
    var queue: Queue
    var memory: Memory
    var pulse: PulseSummary
    var disk: Disk?
    /// Ended tasks whose worktrees hold work that was never pushed.
    var kept_worktrees: [String]
    var sandbox: Sandbox
    var capacity: Capacity?
    /// What keeps the node from working as it should.
    var degraded: [String]
    /// What is missing or wrong in the configuration.
    var configuration_problems: [String]
}

/// The pulse, as anybody may know of it: no names.
struct PulseSummary: Encodable {
    var enabled: Bool
    var last_round: Date?
    var next_round: Date?
    var claims: Int
    var problems: Int
    /// Of GitHub's rate limit, as its last answer told.
    var requests_left: Int?
    var requests_limit: Int?

    init(_ status: PulseStatus) {
        enabled = status.isEnabled
        last_round = status.lastRound
        next_round = status.nextRound
        claims = status.claims.count
        problems = status.problems.count
        requests_left = status.budget.remaining
        requests_limit = status.budget.limit
    }
}

/// The pulse, with what its last round decided and why.
struct PulseView: Encodable {
    struct Claim: Encodable {
        var issue: String
        var task_id: String
    }

    struct Decision: Encodable {
        var repo: String
        var number: Int
        var title: String
        var score: Int
        var verdict: String
        var reason: String
    }

    struct Node: Encodable {
        var name: String
        var free, slots: Int
    }

    var enabled: Bool
    var last_round: Date?
    var next_round: Date?
    var claims: [Claim]
    var problems: [String]
    var decisions: [Decision]
    /// The nodes that the last round could give tasks to.
    var nodes: [Node]
    var requests: Int
    var not_modified: Int
    var requests_left: Int?

    init(_ status: PulseStatus, decisions: [PulseDecision]? = nil) {
        enabled = status.isEnabled
        last_round = status.lastRound
        next_round = status.nextRound
        claims = status.claims.sorted { $0.key < $1.key }.map { Claim(issue: $0.key, task_id: $0.value) }
        problems = status.problems
        self.decisions = (decisions ?? status.decisions).map {
            Decision(
                repo: $0.repo, number: $0.number, title: $0.title, score: $0.score, verdict: $0.verdict.rawValue,
                reason: $0.reason)
        }
        nodes = status.nodes.map { Node(name: $0.name, free: $0.free, slots: $0.all) }
        requests = status.budget.requests
        not_modified = status.budget.notModified
        requests_left = status.budget.remaining
    }
}

struct DispatchView: Encodable {
    var task_id: String
    var status: String
    var pid: Int32?
    var repo: String
    var position: Int?

    func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(task_id, forKey: .task_id)
        try values.encode(status, forKey: .status)
        try values.encode(pid, forKey: .pid)  // null while it waits
        try values.encode(repo, forKey: .repo)
        try values.encodeIfPresent(position, forKey: .position)
    }

    private enum CodingKeys: String, CodingKey { case task_id, status, pid, repo, position }
}

struct CancelView: Encodable {
    let status = "cancelling"
    var task_id: String
}

/// What a task has changed so far.
struct ChangesView: Encodable {
    var task_id: String
    var branch: String
    /// The commit that the work started from; empty in a repository that was.
    var base: String
    var commits: [WorkChanges.Commit]
    var files: [WorkChanges.File]
    var untracked: [String]
    var diff: String
    var truncated: Bool

    init(_ id: String, _ changes: WorkChanges) {
        task_id = id
        branch = changes.branch
        base = changes.base
        commits = changes.commits
        files = changes.files
        untracked = changes.untracked
        diff = changes.diff
        truncated = changes.isTruncated
    }
}

struct WorkersView: Encodable { var workers: [WorkerView] }

/// A task as the API shows it: short in lists, with everything when it's asked for alone.
struct WorkerView: Encodable {
    struct Links: Encodable {
        var `self`: String
        var logs: String
    }

    var task_id: String
    var repo: String
    var state: TaskState
    var reason: String
    var pid: Int32?
    var branch: String
    var model: String
    var created_at: Date
    var start_time: Date
    var ended_at: Date?
    var elapsed_minutes: Int
    var attempt: Int
    var position: Int?
    var outcome: TaskOutcome?
    var exit_code: Int32?
    var signal: Int32?
    var pull_request: String?
    var usage: Usage?
    var work: WorkSummary?
    var log_lines: UInt64
    /// What its processes take now.
    var processes: Int?
    var memory_mb: Int?
    var disk_mb: Int?
    var links: Links
    // Alone only:
    var prompt: String?
    var attempts: [Attempt]?
    var session_id: String?
    var base_commit: String?
    var continue_task: String?
    var restart: RestartPolicy?
    var notices: [Notice]?

    init(_ record: TaskRecord, now: Date, position: Int? = nil, use: ResourceUse? = nil, isDetailed: Bool = false) {
        let last = record.attempts.last
        task_id = record.id
        repo = record.spec.repo
        state = record.state
        reason = record.reason
        pid = last?.endedAt == nil && !record.state.isEnded ? last?.pid : nil
        branch = record.checkedOutBranch ?? record.spec.branch
        model = record.spec.model
        created_at = record.createdAt
        start_time = record.attempts.first?.startedAt ?? record.createdAt
        ended_at = record.endedAt
        elapsed_minutes = Int(max(0, (record.endedAt ?? now).timeIntervalSince(start_time)) / 60)
        attempt = record.attempts.count
        self.position = position
        outcome = record.outcome
        exit_code = record.exitCode
        signal = record.signal
        pull_request = record.pullRequest
        usage = record.usage
        work = record.work
        log_lines = record.logLines
        links = Links(self: "/workers/\(record.id)", logs: "/workers/\(record.id)/logs")
        if let use, use.processes > 0 {
            processes = use.processes
            memory_mb = use.memoryKB / 1024
            disk_mb = use.diskKB / 1024
        }
        guard isDetailed else { return }
        prompt = record.spec.prompt
        attempts = record.attempts
        session_id = record.sessionID
        base_commit = record.base
        continue_task = record.spec.continueTask
        restart = record.spec.restart
        notices = record.notices
    }
}
