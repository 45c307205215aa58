import FoundationEssentials

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

    let gitHub: any GitHub
    let nodes: any PulseNodes
    let clock: any PulseClock
    /// Makes the state durable; what can't be written down isn't done.
    let save: (PulseState) async -> Bool
    package internal(set) var state: PulseState
    package var options: Options
    var login = ""
    /// Repositories are looked at no oftener than their own interval.
    private var lastLooks: [String: Date] = [:]
    package internal(set) var problems: [String] = []
    /// The nodes of the last round.
    package private(set) var fleet: [PulseNode] = []

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

    var speaker: ClaimProtocol.Speaker {
        ClaimProtocol.Speaker(login: login, device: state.device, version: options.version)
    }

    struct Candidate {
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
        fleet = await nodes.nodes()
        let slots = fleet.reduce(0) { $0 + $1.all }
        var free = fleet.reduce(0) { $0 + $1.free }
        var others = state.claims.count
        while let candidate = take(from: &candidates, slots: slots, others: others) {
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
