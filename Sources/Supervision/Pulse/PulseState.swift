package import FoundationEssentials

/// What the pulse must remember over restarts: its claims, and which issues it leaves alone for how long.
package struct PulseState: Sendable, Equatable, Codable {
    /// A claim on an issue, from before it was made public until it's released.
    package struct Claim: Sendable, Equatable, Codable {
        package enum Phase: String, Sendable, Codable {
            /// The claim may be on GitHub; nobody works yet.
            case claiming
            /// It was won; a task may have been given to a node.
            case won
            /// A node works on it.
            case launched
        }

        package var nonce: String
        package var commentID: Int?
        package var phase = Phase.claiming
        package var taskID: String
        /// The node that has the task; nil: this one.
        package var host: String?
        package var attemptID: String
        package var claimedAt: Date
    }

    /// What is known of one issue.
    package struct IssueState: Sendable, Equatable, Codable {
        package var claim: Claim?
        package var failures = 0
        package var retryAt: Date?
        package var tokens = 0
        package var sessions = 0

        package init() {}

        var isForgettable: Bool { self == IssueState() }
    }

    package var device: String
    /// By `owner/repo#N`.
    package var issues: [String: IssueState] = [:]
    /// When tasks ended that had done nothing, the newest last.
    package var idleEnds: [Date] = []
    package var pausedUntil: Date?

    package init(device: String) { self.device = device }

    package static let maxFailures = 5
    static let maxTokens = 800_000
    private static let firstPause = 600.0
    private static let longestPause = 7 * 86_400.0
    private static let maxIdleEnds = 10
    private static let idleWindow = 600.0

    package static func key(_ repo: String, _ number: Int) -> String { "\(repo)#\(number)" }

    package var claims: [(key: String, claim: Claim)] {
        issues.compactMap { key, state in state.claim.map { (key, $0) } }.sorted { $0.key < $1.key }
    }

    /// Why an issue is left alone for now.
    package func problem(_ key: String, now: Date) -> String? {
        guard let state = issues[key] else { return nil }
        if state.claim != nil { return "this node has claimed it" }
        if state.failures >= PulseState.maxFailures { return "it failed \(state.failures) times" }
        if state.tokens >= PulseState.maxTokens { return "it has used \(state.tokens) tokens" }
        if let retryAt = state.retryAt, retryAt > now {
            return "it failed and is tried again at \(retryAt.formatted(.iso8601))"
        }
        return nil
    }

    package mutating func edit(_ key: String, _ change: (inout IssueState) -> Void) {
        var state = issues[key] ?? IssueState()
        change(&state)
        issues[key] = state.isForgettable ? nil : state
    }

    mutating func noteFailure(_ key: String, now: Date) {
        edit(key) { state in
            state.failures += 1
            let pause = PulseState.firstPause * Double(1 << min(20, state.failures - 1))
            state.retryAt = now.addingTimeInterval(min(PulseState.longestPause, pause))
        }
    }

    /// Too many tasks in a row that did nothing point to a fault of the node, not of the issues.
    mutating func noteIdleEnd(now: Date) {
        idleEnds = (idleEnds + [now]).filter { now.timeIntervalSince($0) <= PulseState.idleWindow }
        guard idleEnds.count >= PulseState.maxIdleEnds else { return }
        pausedUntil = now.addingTimeInterval(PulseState.idleWindow)
        idleEnds = []
    }
}
