package import FoundationEssentials

/// Where the pulse's tasks run: this node, and others that it knows.
package protocol PulseNodes: Sendable {
    /// The nodes that answer, this one first, with their slots.
    func nodes() async -> [PulseNode]
    /// Gives a task to a node, under an id that tells whether it has it already.
    func place(_ request: DispatchRequest) async -> PulsePlacement
    /// What became of a task.
    func fate(of taskID: String, on host: String?) async -> PulseFate
}

/// A node, as the pulse sees it.
package struct PulseNode: Sendable, Equatable {
    package var name: String
    /// Slots that a task could have now.
    package var free: Int
    package var all: Int

    package init(name: String, free: Int, all: Int) {
        self.name = name
        self.free = free
        self.all = all
    }
}

package enum PulsePlacement: Sendable, Equatable {
    /// `host` is nil for this node.
    case placed(host: String?, pid: Int32?)
    /// Nobody has it.
    case refused(String)
    /// That node may have it, and can't be asked now.
    case uncertain(host: String, String)
}

package enum PulseFate: Sendable, Equatable {
    case active
    case ended(PulseEnd)
    /// The node knows no such task.
    case unknown
    /// The node can't be asked.
    case unreachable
}

/// How a task ended, as far as its issue is concerned.
package struct PulseEnd: Sendable, Equatable {
    package var state: TaskState
    package var outcome: TaskOutcome?
    package var reason: String
    package var exitCode: Int32?
    package var pullRequest: String?
    package var tokens: Int
    package var attempts: Int

    package init(
        state: TaskState, outcome: TaskOutcome? = nil, reason: String = "", exitCode: Int32? = nil,
        pullRequest: String? = nil, tokens: Int = 0, attempts: Int = 1
    ) {
        self.state = state
        self.outcome = outcome
        self.reason = reason
        self.exitCode = exitCode
        self.pullRequest = pullRequest
        self.tokens = tokens
        self.attempts = attempts
    }

    /// Whether it left nothing behind.
    var isIdle: Bool { outcome == .noEffect || outcome == .premature }
    var hasSucceeded: Bool { state == .succeeded && !isIdle }
}

/// Time and chance, injected: hours of a fleet are tested in seconds.
package protocol PulseClock: Sendable {
    var now: Date { get }
    /// - Returns: false when the pulse was told to stop meanwhile.
    func sleep(_ duration: Duration) async -> Bool
    /// 32 hexadecimal digits.
    func nonce() -> String
}

/// What the pulse does with one issue, and why.
package struct PulseDecision: Sendable, Equatable {
    package enum Verdict: String, Sendable {
        /// Not worked on.
        case skipped
        /// Would be worked on, if there were a slot.
        case waits
        /// Would be claimed (in a dry run).
        case chosen
        case launched
        /// Another node was first.
        case lost
        case failed
    }

    package var repo: String
    package var number: Int
    package var title: String
    package var score: Int
    package var verdict: Verdict
    package var reason: String
}
