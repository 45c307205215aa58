package import FoundationEssentials

/// Where the pulse's tasks run: this node, and others that it knows.
package protocol PulseNodes: Sendable {
    /// Slots that a task could have now, and all that there are.
    func slots() async -> (free: Int, all: Int)
    /// Gives a task to a node, under an id that tells whether it has it already.
    func place(_ request: DispatchRequest) async -> PulsePlacement
    /// What became of a task.
    func fate(of taskID: String, on host: String?) async -> PulseFate
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

/// Finds work on GitHub and hands it out: one round after the other.
///
/// The claim protocol is obeyed to the letter and fails closed: whatever goes wrong, an issue is rather not worked on than
/// twice. Every claim is written down before it's made public, and released on every path.
package final class PulseEngine {
    package struct Options: Sendable {
        package var requiredLabel = ""
        package var agentModel = ""
        package var version = ""
        /// Between two launches.
        package var launchPause = Duration.seconds(8)
        package var settleTime = ClaimProtocol.settleTime

        package init() {}
    }

    /// Requests that are left for the ends of what is under way.
    private static let budgetFloor = 100

    private let gitHub: any GitHub
    private let nodes: any PulseNodes
    private let clock: any PulseClock
    /// Makes the state durable; what can't be written down isn't done.
    private let save: (PulseState) async -> Bool
    package private(set) var state: PulseState
    package var options: Options
    private var login = ""
    /// Repositories are looked at no oftener than their own interval.
    private var lastLooks: [String: Date] = [:]
    package private(set) var problems: [String] = []

    package init(
        gitHub: any GitHub, nodes: any PulseNodes, clock: any PulseClock, state: PulseState, options: Options,
        save: @escaping (PulseState) async -> Bool
    ) {
        self.gitHub = gitHub
        self.nodes = nodes
        self.clock = clock
        self.state = state
        self.options = options
        self.save = save
    }

    private var speaker: ClaimProtocol.Speaker {
        ClaimProtocol.Speaker(login: login, device: state.device, version: options.version)
    }

    private struct Candidate {
        var repository: PulseRepository
        var issue: Issue
        var score: Int
        var key: String { PulseState.key(repository.slug, issue.number) }
    }

    // MARK: A round

    /// Settles what ended, then gives what is most worth it to free slots.
    /// - Parameter isDry: only looks, and says what it would do.
    package func round(_ repositories: [PulseRepository], isDry: Bool = false) async -> [PulseDecision] {
        problems = []
        do throws(GitHubFailure) {
            if login.isEmpty { login = try await gitHub.login() }
        } catch {
            problems.append("GitHub doesn't say whose the token is: \(error)")
            return []
        }
        if !isDry { await settle() }
        if let until = state.pausedUntil, until > clock.now {
            problems.append("paused until \(until.formatted(.iso8601)): too many tasks in a row did nothing")
            return []
        }
        let budget = await gitHub.budget
        if let remaining = budget.remaining, let resetsAt = budget.resetsAt, resetsAt > clock.now,
            remaining < PulseEngine.budgetFloor
        {
            problems.append(
                "\(remaining) requests are left of GitHub's limit: nothing new before \(resetsAt.formatted(.iso8601))")
            return []
        }
        var decisions: [PulseDecision] = []
        var candidates = await collect(repositories, into: &decisions, isDry: isDry)
        let slots = await nodes.slots()
        var free = slots.free
        var others = state.claims.count
        while let candidate = take(from: &candidates, slots: slots.all, others: others) {
            guard free > 0 else {
                decisions.append(decision(candidate, .waits, "no slot is free"))
                continue
            }
            if isDry {
                decisions.append(decision(candidate, .chosen, "it would be claimed"))
                free -= 1
                continue
            }
            let (verdict, reason) = await work(on: candidate)
            decisions.append(decision(candidate, verdict, reason))
            guard verdict == .launched else { continue }
            free -= 1
            if !candidate.repository.isProduct { others += 1 }
            guard await clock.sleep(options.launchPause) else { break }
        }
        return decisions
    }

    private func decision(_ candidate: Candidate, _ verdict: PulseDecision.Verdict, _ reason: String) -> PulseDecision {
        PulseDecision(
            repo: candidate.repository.slug, number: candidate.issue.number, title: candidate.issue.title,
            score: candidate.score, verdict: verdict, reason: reason)
    }

    private func collect(
        _ repositories: [PulseRepository], into decisions: inout [PulseDecision], isDry: Bool
    ) async -> [Candidate] {
        var eligibility = Eligibility(login: login)
        eligibility.requiredLabel = options.requiredLabel
        var found: [Candidate] = []
        for repository in repositories {
            let now = clock.now
            if repository.restPeriod(at: LocalTime(now)) != nil { continue }
            if !isDry, let interval = repository.interval, let last = lastLooks[repository.slug],
                now.timeIntervalSince(last) < interval.seconds
            {
                continue
            }
            lastLooks[repository.slug] = now
            do throws(GitHubFailure) {
                for issue in try await gitHub.openIssues(of: repository.slug) {
                    let candidate = Candidate(
                        repository: repository, issue: issue,
                        score: Eligibility.score(issue, in: repository, now: now))
                    let reason = eligibility.problem(issue, now: now) ?? state.problem(candidate.key, now: now)
                    if let reason {
                        decisions.append(decision(candidate, .skipped, reason))
                    } else {
                        found.append(candidate)
                    }
                }
            } catch {
                problems.append("\(repository.slug): \(error)")
                if case .limited = error.kind { break }
            }
        }
        return found.sorted { ($1.score, $0.issue.createdAt, $0.key) < ($0.score, $1.issue.createdAt, $1.key) }
    }

    /// The next in order; products have a soft reservation of 60% of the slots.
    private func take(from candidates: inout [Candidate], slots: Int, others: Int) -> Candidate? {
        guard !candidates.isEmpty else { return nil }
        let reserved = (slots * 6 + 9) / 10
        if !candidates[0].repository.isProduct, others >= max(1, slots - reserved),
            let product = candidates.firstIndex(where: \.repository.isProduct)
        {
            return candidates.remove(at: product)
        }
        return candidates.removeFirst()
    }
}

// MARK: - One issue

extension PulseEngine {
    private func edit(_ key: String, _ change: (inout PulseState.IssueState) -> Void) async -> Bool {
        state.edit(key, change)
        return await save(state)
    }

    private func work(on candidate: Candidate) async -> (PulseDecision.Verdict, String) {
        let (repo, number) = (candidate.repository.slug, candidate.issue.number)
        do throws(GitHubFailure) {
            // Looked at first, so that a race is only run where there's something to win.
            let comments = try await gitHub.comments(on: number, of: repo)
            let standing = ClaimProtocol.standing(comments, assignees: candidate.issue.assignees, now: clock.now)
            if let other = standing.first { return (.lost, "\(other.runner) has claimed it") }
            if try await gitHub.hasPullRequest(for: number, of: repo) {
                return (.skipped, "a pull request refers to it")
            }
        } catch { return (.failed, error.description) }
        let nonce = clock.nonce()
        let claim = PulseState.Claim(
            nonce: nonce, taskID: PulseEngine.taskID(repo, number, nonce), attemptID: clock.nonce(),
            claimedAt: clock.now)
        guard await edit(candidate.key, { $0.claim = claim }) else {
            state.edit(candidate.key) { $0.claim = nil }
            return (.failed, "the claim could not be written down")
        }
        let lost: String
        do throws(GitHubFailure) {
            if let reason = try await contest(candidate, claim) {
                lost = reason
            } else {
                return await launch(candidate, nonce)
            }
        } catch {
            await withdraw(candidate.key, reason: "claim_failed")
            return (.failed, error.description)
        }
        await withdraw(candidate.key, reason: nil)
        return (.lost, lost)
    }

    /// Up to 128 characters, the same for the same claim.
    private static func taskID(_ repo: String, _ number: Int, _ nonce: String) -> String {
        let name = repo.replacing("/", with: "-").suffix(80)
        return "issue-\(name)-\(number)-\(nonce.prefix(8))"
    }

    /// Runs the race for an issue.
    /// - Returns: why it was lost; nil when it was won.
    private func contest(_ candidate: Candidate, _ claim: PulseState.Claim) async throws(GitHubFailure) -> String? {
        let (repo, number) = (candidate.repository.slug, candidate.issue.number)
        let body = ClaimProtocol.claim(claim.nonce, issue: number, by: speaker, now: clock.now)
        let posted = try await gitHub.comment(body, on: number, of: repo)
        state.edit(candidate.key) { $0.claim?.commentID = posted.id }
        _ = await save(state)
        guard await clock.sleep(options.settleTime) else { throw GitHubFailure(.other, "the node is stopping") }
        let issue = try await gitHub.issue(number, of: repo)
        let comments = try await gitHub.comments(on: number, of: repo)
        let standing = ClaimProtocol.standing(comments, assignees: issue.assignees, now: clock.now)
        guard let first = standing.first, standing.contains(where: { $0.nonce == claim.nonce }) else {
            return "its own claim can't be seen"
        }
        guard first.nonce == claim.nonce else { return "\(first.runner) was first" }
        var eligibility = Eligibility(login: login)
        eligibility.requiredLabel = options.requiredLabel
        return eligibility.problem(issue, now: clock.now)
    }

    private func launch(_ candidate: Candidate, _ nonce: String) async -> (PulseDecision.Verdict, String) {
        let (repo, number, key) = (candidate.repository.slug, candidate.issue.number, candidate.key)
        do throws(GitHubFailure) {
            guard await edit(key, { $0.claim?.phase = .won }), let claim = state.issues[key]?.claim else {
                throw GitHubFailure(.other, "the claim could not be written down")
            }
            try await gitHub.assign(login, to: number, of: repo)
            // Another may have been assigned at the same moment.
            let assignees = try await gitHub.issue(number, of: repo).assignees
            guard assignees.map({ $0.lowercased() }) == [login.lowercased()] else {
                throw GitHubFailure(.other, "it is assigned to \(assignees.joined(separator: ", "))")
            }
            try await gitHub.addLabels(["status:queued"], to: number, of: repo)
            let lease = ClaimProtocol.lease(
                .prelaunch, token: nonce, issue: number, attempt: claim.attemptID, by: speaker, now: clock.now)
            _ = try await gitHub.comment(lease, on: number, of: repo)
            let request = try await request(for: candidate, claim)
            switch await nodes.place(request) {
            case .placed(let host, let pid): return await launched(candidate, claim, host: host, pid: pid)
            case .refused(let reason): throw GitHubFailure(.other, reason)
            case .uncertain(let host, let reason):
                // It counts as launched until that node says otherwise.
                _ = await edit(key) {
                    $0.claim?.phase = .launched
                    $0.claim?.host = host
                }
                return (.failed, "\(host) may have it: \(reason)")
            }
        } catch {
            await withdraw(key, reason: "launch_failed")
            return (.failed, error.description)
        }
    }

    private func request(for candidate: Candidate, _ claim: PulseState.Claim) async throws(GitHubFailure)
        -> DispatchRequest
    {
        let (repo, number) = (candidate.repository.slug, candidate.issue.number)
        let earlier = try await gitHub.branches(beginning: "feature/auto-", of: repo).last {
            $0.hasSuffix("-gh\(number)")
        }
        var request = DispatchRequest(
            repo: repo, prompt: "/full-loop Implement issue #\(number) (\(candidate.issue.url))")
        request.id = claim.taskID
        request.branch = earlier ?? "feature/auto-\(PulseEngine.stamp(clock.now))-gh\(number)"
        request.baseBranch = candidate.repository.baseBranch
        request.issue = IssueContext(
            number: number, title: candidate.issue.title, login: login, leaseToken: claim.nonce, device: state.device,
            attemptID: claim.attemptID)
        return request
    }

    /// `YYYYMMDD-HHMMSS`, in UTC.
    private static func stamp(_ date: Date) -> String {
        let digits = date.formatted(.iso8601).filter(\.isNumber)
        return "\(digits.prefix(8))-\(digits.dropFirst(8).prefix(6))"
    }

    private func launched(_ candidate: Candidate, _ claim: PulseState.Claim, host: String?, pid: Int32?) async
        -> (PulseDecision.Verdict, String)
    {
        let (repo, number) = (candidate.repository.slug, candidate.issue.number)
        _ = await edit(candidate.key) {
            $0.claim?.phase = .launched
            $0.claim?.host = host
        }
        let tier = candidate.issue.labels.first { $0.hasPrefix("tier:") }?.dropFirst(5) ?? "standard"
        let words = ClaimProtocol.dispatching(
            token: claim.nonce, issue: number, attempt: claim.attemptID,
            claim: state.issues[candidate.key]?.claim?.commentID ?? 0, pid: pid, model: options.agentModel,
            tier: String(tier), by: speaker)
        let lease = ClaimProtocol.lease(
            .ready, token: claim.nonce, issue: number, attempt: claim.attemptID, by: speaker, now: clock.now)
        // The worker runs: what GitHub doesn't take now doesn't end it.
        for body in [lease, words] {
            do throws(GitHubFailure) { _ = try await gitHub.comment(body, on: number, of: repo) } catch {
                problems.append("\(candidate.key): \(error)")
            }
        }
        do throws(GitHubFailure) {
            try await gitHub.addLabels(["status:in-progress"], to: number, of: repo)
            for label in ["status:queued", "status:available"] {
                try await gitHub.removeLabel(label, from: number, of: repo)
            }
        } catch { problems.append("\(candidate.key): \(error)") }
        return (.launched, host.map { "on \($0)" } ?? "on this node")
    }
}

// MARK: - Ends

extension PulseEngine {
    /// Looks at every claim of this node: what ended is released, and so is what an earlier run left half done.
    package func settle() async {
        for (key, claim) in state.claims {
            switch (await nodes.fate(of: claim.taskID, on: claim.host), claim.phase) {
            case (.active, .launched): continue
            case (.unreachable, .launched):
                // The lease of a worker that nobody can ask about has run out for everybody.
                guard clock.now.timeIntervalSince(claim.claimedAt) > Double(ClaimProtocol.leaseSeconds) else {
                    continue
                }
                await withdraw(key, reason: "lost", isFailure: true)
            case (.active, _): _ = await edit(key) { $0.claim?.phase = .launched }
            case (.ended(let end), _): await conclude(key, claim, end)
            case (.unknown, .launched): await withdraw(key, reason: "lost", isFailure: true)
            case (.unknown, _), (.unreachable, _): await withdraw(key, reason: "interrupted")
            }
        }
    }

    private func split(_ key: String) -> (repo: String, number: Int)? {
        guard let mark = key.lastIndex(of: "#"), let number = Int(key[key.index(after: mark)...]) else { return nil }
        return (String(key[..<mark]), number)
    }

    private func conclude(_ key: String, _ claim: PulseState.Claim, _ end: PulseEnd) async {
        guard let (repo, number) = split(key) else { return state.edit(key) { $0.claim = nil } }
        let now = clock.now
        let kind = end.outcome?.rawValue ?? end.state.rawValue
        var words = "The worker ended: \(end.reason)."
        if let link = end.pullRequest { words += " Pull request: \(link)" }
        let sessions = (state.issues[key]?.sessions ?? 0) + end.attempts
        let body = ClaimProtocol.release(
            kind, exit: end.exitCode, sessions: sessions, by: speaker, now: now, words: words)
        do throws(GitHubFailure) {
            try await release(key, claim, body, keepsAssignment: end.pullRequest != nil)
        } catch {
            // It stands until it can be released: the next round tries again.
            return problems.append("\(key): \(error)")
        }
        state.edit(key) {
            $0.tokens += end.tokens
            $0.sessions = sessions
        }
        if end.isIdle { state.noteIdleEnd(now: now) }
        if !end.hasSucceeded, end.state != .cancelled { state.noteFailure(key, now: now) }
        // What succeeded isn't looked for again at once: GitHub may show the pull request a little later.
        if end.hasSucceeded { state.edit(key) { $0.retryAt = now.addingTimeInterval(600) } }
        if end.state == .cancelled { state.edit(key) { $0.retryAt = now.addingTimeInterval(3600) } }
        await block(key, repo, number, after: end)
        _ = await edit(key) { $0.claim = nil }
    }

    /// An issue that failed too often, or has used too much, is left to people.
    private func block(_ key: String, _ repo: String, _ number: Int, after end: PulseEnd) async {
        guard let issue = state.issues[key] else { return }
        let why: String
        if issue.failures >= PulseState.maxFailures {
            why = "its workers failed \(issue.failures) times in a row, the last with: \(end.reason)"
        } else if issue.tokens >= PulseState.maxTokens, !end.hasSucceeded {
            why = "its workers have used \(issue.tokens) tokens without coming to an end"
        } else {
            return
        }
        do throws(GitHubFailure) {
            try await gitHub.addLabels(["status:blocked"], to: number, of: repo)
            _ = try await gitHub.comment(
                "Blocked: \(why). Remove the label `status:blocked` when it may be tried again.", on: number, of: repo)
        } catch { problems.append("\(key): \(error)") }
    }

    private func release(_ key: String, _ claim: PulseState.Claim, _ body: String, keepsAssignment: Bool)
        async throws(GitHubFailure)
    {
        guard let (repo, number) = split(key) else { return }
        let lease = ClaimProtocol.lease(
            .terminal, token: claim.nonce, issue: number, attempt: claim.attemptID, by: speaker, now: clock.now)
        if !keepsAssignment {
            for label in ["status:queued", "status:in-progress", "status:claimed"] {
                try await gitHub.removeLabel(label, from: number, of: repo)
            }
            try await gitHub.unassign(login, from: number, of: repo)
        }
        _ = try await gitHub.comment(lease, on: number, of: repo)
        _ = try await gitHub.comment(body, on: number, of: repo)
    }

    /// Takes a claim back that led to nothing.
    /// - Parameter reason: nil for a lost race, of which nothing but the claim itself has to go.
    private func withdraw(_ key: String, reason: String?, isFailure: Bool = false) async {
        guard let claim = state.issues[key]?.claim, let (repo, number) = split(key) else { return }
        do throws(GitHubFailure) {
            try await removeClaimComment(claim, repo, number)
            if claim.phase != .claiming {
                let words = "No worker runs on it any more (\(reason ?? "lost"))."
                let body = ClaimProtocol.release(
                    reason ?? "lost", exit: nil, sessions: state.issues[key]?.sessions ?? 0, by: speaker,
                    now: clock.now,
                    words: words)
                try await release(key, claim, body, keepsAssignment: false)
            }
        } catch {
            // It runs out by itself, and the next round tries again.
            return problems.append("\(key): \(error)")
        }
        if isFailure { state.noteFailure(key, now: clock.now) }
        _ = await edit(key) { $0.claim = nil }
    }

    /// After a crash its id may not be known: then it's found by its nonce.
    private func removeClaimComment(_ claim: PulseState.Claim, _ repo: String, _ number: Int)
        async throws(GitHubFailure)
    {
        var id = claim.commentID
        if id == nil {
            let comments = try await gitHub.comments(on: number, of: repo)
            id = comments.first { $0.body.contains("DISPATCH_CLAIM nonce=\(claim.nonce) ") }?.id
        }
        if let id { try await gitHub.deleteComment(id, of: repo) }
    }
}
