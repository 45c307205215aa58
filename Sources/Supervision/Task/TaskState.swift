/// Where a task is in its life.
package enum TaskState: String, Sendable, Codable, CaseIterable {
    /// Waits for a slot or for memory.
    case queued
    /// Its worker runs and makes the workspace.
    case preparing
    /// Its agent runs.
    case running
    /// It was told to end, and its processes are being ended.
    case stopping
    /// Waits for its next attempt.
    case restarting
    /// The node stopped while it ran; the next start of the node goes on with it.
    case interrupted
    case succeeded
    case failed
    case cancelled
    case timedOut = "timed_out"

    package var isEnded: Bool {
        switch self {
        case .queued, .preparing, .running, .stopping, .restarting, .interrupted: false
        case .succeeded, .failed, .cancelled, .timedOut: true
        }
    }
}

/// What came of a task, as far as it can be seen from outside the agent.
package enum TaskOutcome: String, Sendable, Codable {
    /// The agent said that it's done (`FULL_LOOP_COMPLETE`, `TASK_COMPLETE` or `POST_PR_HANDOFF`).
    case complete
    /// A pull request was opened or merged.
    case pullRequest = "pull_request"
    /// Commits were pushed.
    case pushed
    /// The agent said that it can't go on (`BLOCKED`).
    case blocked
    /// There are commits or changes that weren't pushed.
    case unpushed
    /// Nothing was printed and nothing changed, or the agent did nothing that could be seen.
    case noEffect = "no_effect"
    /// The agent stopped without saying that it's done and without anything to show for it.
    case premature
    /// It took more disk, memory or processes than it may.
    case overQuota = "over_quota"
}
