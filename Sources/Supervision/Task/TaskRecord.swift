package import FoundationEssentials
import Glibc

/// What a dispatch asked for, with its defaults filled in.
package struct TaskSpec: Sendable, Equatable, Codable {
    package var id: String
    package var repo: String
    package var prompt: String
    package var model: String
    package var branch: String
    /// Whether the dispatch named the branch; else the remote's default stands in for a missing one.
    package var branchWasNamed: Bool
    /// Overrides the node's restart policy.
    package var restart: RestartPolicy?
    /// The earlier task whose worktree and agent session this one goes on in.
    package var continueTask: String?
    /// Who is told of the end, besides whom the node tells anyway.
    package var callbackURL: String?
    /// What a branch that isn't there starts from; nil: the remote's default branch.
    package var baseBranch: String?
    package var issue: IssueContext?

    package init(id: String, repo: String, prompt: String, model: String, branch: String?) {
        self.id = id
        self.repo = repo
        self.prompt = prompt
        self.model = model
        self.branch = branch ?? TaskSpec.defaultBranch
        branchWasNamed = branch != nil
    }

    package static let defaultBranch = "main"

    enum CodingKeys: String, CodingKey {
        case id = "task_id"
        case repo, prompt, model, branch, restart, issue
        case branchWasNamed = "branch_was_named"
        case continueTask = "continue_task"
        case callbackURL = "callback_url"
        case baseBranch = "base_branch"
    }
}

/// One run of a worker for a task.
package struct Attempt: Sendable, Equatable, Codable {
    package var number: Int
    package var startedAt: Date
    package var endedAt: Date?
    package var pid: Int32?
    /// When the process started, in the kernel's clock ticks since boot: with the pid, it names one process.
    package var processStart: UInt64?
    /// How far it came.
    package var phase: WorkerReport.Phase?
    package var exitCode: Int32?
    package var signal: Int32?
    package var reason: String?
    package var userSeconds: Double?
    package var systemSeconds: Double?
    /// Of the worker's whole tree, as it was seen each second, or of its largest process.
    package var peakMemoryMB: Int?

    package init(number: Int, startedAt: Date) {
        self.number = number
        self.startedAt = startedAt
    }

    enum CodingKeys: String, CodingKey {
        case number, pid, phase, signal, reason
        case startedAt = "started_at"
        case endedAt = "ended_at"
        case processStart = "process_start"
        case exitCode = "exit_code"
        case userSeconds = "user_seconds"
        case systemSeconds = "system_seconds"
        case peakMemoryMB = "peak_memory_mb"
    }
}

/// What the agent used, as far as its events tell.
package struct Usage: Sendable, Equatable, Codable {
    package var inputTokens = 0
    package var outputTokens = 0
    package var cacheReadTokens = 0
    package var cacheWriteTokens = 0
    package var costUSD: Double?

    package init() {}

    package var isEmpty: Bool { self == Usage() }

    package static func + (left: Usage, right: Usage) -> Usage {
        var sum = left
        sum.inputTokens += right.inputTokens
        sum.outputTokens += right.outputTokens
        sum.cacheReadTokens += right.cacheReadTokens
        sum.cacheWriteTokens += right.cacheWriteTokens
        if let cost = right.costUSD { sum.costUSD = (left.costUSD ?? 0) + cost }
        return sum
    }

    enum CodingKeys: String, CodingKey {
        case inputTokens = "input_tokens"
        case outputTokens = "output_tokens"
        case cacheReadTokens = "cache_read_tokens"
        case cacheWriteTokens = "cache_write_tokens"
        case costUSD = "cost_usd"
    }
}

/// All that is known of a task: one JSON file each, in `tasks/ID.json`.
package struct TaskRecord: Sendable, Equatable, Codable {
    /// The version of the form; a newer one isn't read.
    package static let currentVersion = 1

    package var version = TaskRecord.currentVersion
    package var spec: TaskSpec
    package var state: TaskState
    /// A sentence.
    package var reason: String
    package var createdAt: Date
    package var endedAt: Date?
    package var attempts: [Attempt] = []
    /// When attempts were restarted, for the restart intensity.
    package var restarts: [Date] = []
    /// How often the agent's session was continued because it had stopped too early.
    package var continuations = 0
    package var outcome: TaskOutcome?
    /// The branch that was checked out last.
    package var checkedOutBranch: String?
    /// The commit that the work is counted from.
    package var base: String?
    package var sessionID: String?
    package var work: WorkSummary?
    package var usage: Usage?
    package var pullRequest: String?
    package var logLines: UInt64 = 0
    package var worktreeRemoved = false
    /// Who is told of the end.
    package var notices: [Notice]?

    package init(spec: TaskSpec, state: TaskState, reason: String, createdAt: Date) {
        self.spec = spec
        self.state = state
        self.reason = reason
        self.createdAt = createdAt
    }

    package var id: String { spec.id }
    package var exitCode: Int32? { attempts.last?.exitCode }
    package var signal: Int32? { attempts.last?.signal }

    enum CodingKeys: String, CodingKey {
        case version, spec, state, reason, attempts, restarts, continuations, outcome, base, work, usage, notices
        case createdAt = "created_at"
        case endedAt = "ended_at"
        case checkedOutBranch = "checked_out_branch"
        case sessionID = "session_id"
        case pullRequest = "pull_request"
        case logLines = "log_lines"
        case worktreeRemoved = "worktree_removed"
    }
}

extension TaskRecord {
    /// Milliseconds tell in which order tasks came.
    private static let timeStyle = Date.ISO8601FormatStyle(includingFractionalSeconds: true)

    package func encoded() -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.dateEncodingStrategy = .custom { date, encoder in
            var value = encoder.singleValueContainer()
            try value.encode(date.formatted(TaskRecord.timeStyle))
        }
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        do {
            return Array(try encoder.encode(self)) + [UInt8(ascii: "\n")]
        } catch {
            preconditionFailure("a record of plain values can't fail to encode: \(error)")
        }
    }

    package init(decoding bytes: [UInt8]) throws {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .custom { decoder in
            let text = try decoder.singleValueContainer().decode(String.self)
            return try Date(text, strategy: TaskRecord.timeStyle)
        }
        self = try decoder.decode(TaskRecord.self, from: Data(bytes))
        guard version <= TaskRecord.currentVersion else {
            throw SystemError("the record is of version \(version), newer than this program knows", errno: EPROTO)
        }
    }
}
