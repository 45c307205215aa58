/// What a worker-init tells the server while it works, one line each over its report pipe.
package enum WorkerReport: Sendable, Equatable {
    package enum Phase: String, Sendable, Codable {
        /// Bringing the shared cache up to date.
        case fetch
        /// Making the task's worktree.
        case checkout
        /// Starting and running the agent.
        case agent
    }

    case phase(Phase)
    /// Something that people should read in the log.
    case note(String)
    /// The branch that is checked out and the commit that the work starts from (empty in an empty repository).
    case checkedOut(branch: String, base: String)
    case agentStarted(pid: Int32)
    /// The preparation or the start failed; `isTransient` when trying again may help (the network, a busy cache).
    case failed(Phase, message: String, isTransient: Bool)
    case agentExited(ChildExit.Status)
    /// What the worktree holds at the end.
    case work(WorkSummary)
    /// What all of the worker's processes use now; told when it has changed.
    case use(ResourceUse)
    /// The worker was told to stop, and its tree is gone.
    case stopped

    /// The longest line that is taken; the rest of a longer message is left out.
    package static let maxLineBytes = 8 * 1024
}

/// What a worker's processes and its folder take.
package struct ResourceUse: Sendable, Equatable {
    package var processes = 0
    /// Memory that they don't share.
    package var memoryKB = 0
    /// Of the task's folder, when it was last measured.
    package var diskKB = 0

    package init(processes: Int = 0, memoryKB: Int = 0, diskKB: Int = 0) {
        self.processes = processes
        self.memoryKB = memoryKB
        self.diskKB = diskKB
    }
}

/// What an agent left in its worktree.
package struct WorkSummary: Sendable, Equatable, Codable {
    /// Commits that the base has not.
    package var commits: Int
    /// Commits that no branch of the remote has.
    package var unpushedCommits: Int
    /// Whether files are changed or new and not committed.
    package var hasUncommittedChanges: Bool
    /// The branch that is checked out.
    package var branch: String

    package init(commits: Int, unpushedCommits: Int, hasUncommittedChanges: Bool, branch: String) {
        self.commits = commits
        self.unpushedCommits = unpushedCommits
        self.hasUncommittedChanges = hasUncommittedChanges
        self.branch = branch
    }

    enum CodingKeys: String, CodingKey {
        case commits, branch
        case unpushedCommits = "unpushed_commits"
        case hasUncommittedChanges = "uncommitted_changes"
    }
}

extension WorkerReport {
    /// The line, without its newline: words between tabs.
    package var line: String {
        let words: [String] =
            switch self {
            case .phase(let phase): ["phase", phase.rawValue]
            case .note(let text): ["note", text]
            case .checkedOut(let branch, let base): ["checked_out", branch, base]
            case .agentStarted(let pid): ["agent", String(pid)]
            case .failed(let phase, let message, let isTransient):
                ["failed", phase.rawValue, isTransient ? "transient" : "permanent", message]
            case .agentExited(.exited(let code)): ["exited", String(code)]
            case .agentExited(.signalled(let signal)): ["signalled", String(signal)]
            case .work(let work):
                [
                    "work", String(work.commits), String(work.unpushedCommits),
                    work.hasUncommittedChanges ? "dirty" : "clean", work.branch,
                ]
            case .use(let use): ["use", String(use.processes), String(use.memoryKB), String(use.diskKB)]
            case .stopped: ["stopped"]
            }
        let line = words.map { $0.split { $0 == "\t" || $0.isNewline }.joined(separator: " ") }.joined(separator: "\t")
        return String(decoding: line.utf8.prefix(WorkerReport.maxLineBytes), as: UTF8.self)
    }

    /// Nil for a line that this version doesn't know.
    package init?(line: String) {
        let words = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
        switch (words[0], words.count) {
        case ("phase", 2):
            guard let phase = Phase(rawValue: words[1]) else { return nil }
            self = .phase(phase)
        case ("note", 2): self = .note(words[1])
        case ("checked_out", 3): self = .checkedOut(branch: words[1], base: words[2])
        case ("agent", 2): self = .agentStarted(pid: Int32(words[1]) ?? 0)
        case ("failed", 4):
            guard let phase = Phase(rawValue: words[1]) else { return nil }
            self = .failed(phase, message: words[3], isTransient: words[2] == "transient")
        case ("exited", 2): self = .agentExited(.exited(Int32(words[1]) ?? -1))
        case ("signalled", 2): self = .agentExited(.signalled(Int32(words[1]) ?? 0))
        case ("work", 5):
            self = .work(
                WorkSummary(
                    commits: Int(words[1]) ?? 0, unpushedCommits: Int(words[2]) ?? 0,
                    hasUncommittedChanges: words[3] == "dirty", branch: words[4]))
        case ("use", 4):
            self = .use(
                ResourceUse(
                    processes: Int(words[1]) ?? 0, memoryKB: Int(words[2]) ?? 0, diskKB: Int(words[3]) ?? 0))
        case ("stopped", 1): self = .stopped
        default: return nil
        }
    }
}
