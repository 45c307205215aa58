package import FoundationEssentials

/// The comments by which the nodes of a fleet agree on who works on an issue: GitHub's clock and order decide.
package enum ClaimProtocol {
    /// How long all nodes that race have to be seen.
    package static let settleTime = Duration.seconds(8)
    static let maxAgeSeconds = 1800
    /// A claim without an assignee or a launch by then is an orphan.
    static let prelaunchSeconds = 120
    static let leaseSeconds = 7200
    private static let trusted: Set = ["OWNER", "MEMBER", "COLLABORATOR"]
    private static let start = "<!-- ops:start: the fleet's own bookkeeping, not part of the task -->"
    private static let end = "<!-- ops:end -->"

    /// Who speaks.
    package struct Speaker: Sendable, Equatable {
        package var login: String
        /// Stable for this node.
        package var device: String
        package var version: String
        package var agentVersion: String

        package init(login: String, device: String, version: String, agentVersion: String = "unknown") {
            self.login = login
            self.device = device
            self.version = version
            self.agentVersion = agentVersion
        }
    }

    enum LeasePhase: String { case prelaunch, ready, terminal }

    // MARK: Writing

    private static func body(_ line: String, before: String = "") -> String {
        before + start + "\n" + line + "\n" + end
    }

    static func claim(_ nonce: String, issue: Int, by speaker: Speaker, now: Date) -> String {
        body(
            "DISPATCH_CLAIM nonce=\(nonce) runner=\(speaker.login) ts=\(now.formatted(.iso8601)) "
                + "max_age_s=\(maxAgeSeconds) version=\(speaker.version) opencode_version=\(speaker.agentVersion) "
                + "lease_token=\(nonce) device=\(speaker.device) session=issue-\(issue) phase=prelaunch "
                + "expires_at=\(Int(now.timeIntervalSince1970) + prelaunchSeconds)")
    }

    static func lease(
        _ phase: LeasePhase, token: String, issue: Int, attempt: String, by speaker: Speaker, now: Date
    ) -> String {
        let seconds = phase == .ready ? leaseSeconds : phase == .prelaunch ? prelaunchSeconds : 0
        return body(
            "DISPATCH_LEASE phase=\(phase.rawValue) lease_token=\(token) device=\(speaker.device) "
                + "session=issue-\(issue) expires_at=\(Int(now.timeIntervalSince1970) + seconds) "
                + "ts=\(now.formatted(.iso8601)) attempt_id=\(attempt)")
    }

    static func dispatching(
        token: String, issue: Int, attempt: String, claim: Int, pid: Int32?, model: String, tier: String,
        by speaker: Speaker
    ) -> String {
        """
        Dispatching worker (deterministic).

        - PID: \(pid.map(String.init) ?? "none yet")
        - Model: \(model)
        - Tier: \(tier)
        - Runner: \(speaker.login)

        <!-- aidevops:dispatch lease_token=\(token) device=\(speaker.device) session=issue-\(issue) attempt_id=\(attempt) claim_id=\(claim) -->
        """
    }

    static func release(_ reason: String, exit: Int32?, sessions: Int, by speaker: Speaker, now: Date, words: String)
        -> String
    {
        body(
            "CLAIM_RELEASED reason=\(reason) runner=\(speaker.login) ts=\(now.formatted(.iso8601)) "
                + "aidevops_version=\(speaker.version) opencode_version=\(speaker.agentVersion) "
                + "exit=\(exit.map(String.init) ?? "none") session_count=\(sessions)",
            before: words.isEmpty ? "" : words + "\n\n")
    }

    // MARK: Reading

    /// A line of bookkeeping in a comment.
    struct Statement: Equatable {
        var keyword: String
        var values: [String: String]
        var comment: IssueComment

        init?(_ comment: IssueComment) {
            guard trusted.contains(comment.association) else { return nil }
            let keywords = ["DISPATCH_CLAIM", "DISPATCH_LEASE", "CLAIM_RELEASED"]
            for line in comment.body.split(whereSeparator: \.isNewline) {
                let words = line.split(separator: " ")
                guard let first = words.first.map(String.init), keywords.contains(first) else { continue }
                keyword = first
                values = [:]
                for word in words.dropFirst() {
                    let pair = word.split(separator: "=", maxSplits: 1)
                    if pair.count == 2 { values[String(pair[0])] = String(pair[1]) }
                }
                self.comment = comment
                return
            }
            return nil
        }
    }

    /// A claim that stands, by its place in the order.
    package struct Claim: Sendable, Equatable {
        package var nonce: String
        package var runner: String
        package var commentID: Int
        package var createdAt: Date
    }

    /// The claims that stand, the winner first.
    /// - Parameter assignees: of the issue: who is one has launched, or is about to.
    package static func standing(_ comments: [IssueComment], assignees: [String], now: Date) -> [Claim] {
        let statements = comments.compactMap(Statement.init)
        let claims = statements.filter { $0.keyword == "DISPATCH_CLAIM" }.compactMap { statement -> Claim? in
            guard let nonce = statement.values["nonce"], stands(statement, among: statements, assignees, now) else {
                return nil
            }
            return Claim(
                nonce: nonce, runner: statement.values["runner"] ?? "", commentID: statement.comment.id,
                createdAt: statement.comment.createdAt)
        }
        return claims.sorted { ($0.createdAt, $0.nonce) < ($1.createdAt, $1.nonce) }
    }

    private static func stands(
        _ claim: Statement, among statements: [Statement], _ assignees: [String], _ now: Date
    ) -> Bool {
        let runner = claim.values["runner"]
        let token = claim.values["lease_token"]
        func isLater(_ other: Statement) -> Bool {
            (other.comment.createdAt, other.comment.id) > (claim.comment.createdAt, claim.comment.id)
        }
        let isVoid = statements.contains { other in
            guard isLater(other) else { return false }
            if other.keyword == "CLAIM_RELEASED" {
                return other.values["runner"] == nil || other.values["runner"] == runner
            }
            return other.keyword == "DISPATCH_LEASE" && other.values["phase"] == "terminal"
                && other.values["lease_token"] == token
        }
        guard !isVoid else { return false }
        if hasLease(token, among: statements, now) { return true }
        let age = now.timeIntervalSince(claim.comment.createdAt)
        guard age < Double(claim.values["max_age_s"].flatMap { Int($0) } ?? maxAgeSeconds) else { return false }
        let expiry = claim.values["expires_at"].flatMap { Double($0) } ?? .infinity
        let isFresh =
            min(expiry, claim.comment.createdAt.timeIntervalSince1970 + Double(prelaunchSeconds))
            >= now.timeIntervalSince1970
        return isFresh || assignees.contains { $0.lowercased() == runner?.lowercased() }
    }

    /// Whether a launched worker's lease on this token lasts.
    private static func hasLease(_ token: String?, among statements: [Statement], _ now: Date) -> Bool {
        guard let token else { return false }
        return statements.contains { lease in
            lease.keyword == "DISPATCH_LEASE" && lease.values["phase"] == "ready"
                && lease.values["lease_token"] == token
                && (lease.values["expires_at"].flatMap { Double($0) } ?? 0) >= now.timeIntervalSince1970
        }
    }
}
