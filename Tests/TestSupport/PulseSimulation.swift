import FoundationEssentials
import Supervision

/// A fleet in virtual time: real pulse engines, a GitHub in memory with latencies, clocks that differ, and nodes whose tasks
/// take their time. Deterministic for a seed; hours pass in moments.
package final class PulseSimulation: @unchecked Sendable {
    package struct Options {
        package var nodes = 2
        package var issues = 50
        package var slots = 4
        package var seed: UInt64 = 1
        package var hours = 6.0
        /// Clocks differ by up to so much from GitHub's, both ways.
        package var clockErrorSeconds = 5.0
        package var intervalSeconds = 120.0
        /// The share of tasks that end without anything to show.
        package var failureShare = 0.1
        /// Kills so many nodes at random moments; each starts again, with the state that it had written down.
        package var crashes = 0

        package init() {}
    }

    package struct Report {
        /// Issues by how often a worker was started on them before the last one had ended.
        package var workedTwiceAtOnce = 0
        package var succeeded = 0
        package var unworked = 0
        package var claimsPosted = 0
        package var claimsLost = 0
        package var requests = 0
        package var notModified = 0
        package var hours = 0.0
        /// From the simulation's start to an issue's first launch, in seconds.
        package var startTimes: [Double] = []
        package var claimsLeft = 0
        package var labelsLeft = 0
    }

    package let options: Options
    private let loop: EventLoop
    private var random: SplitMix
    private var issues: [Int: Entry] = [:]
    private var time = Date(timeIntervalSince1970: 1_800_000_000)
    private let start = Date(timeIntervalSince1970: 1_800_000_000)
    private var sleepers: [(wake: Date, order: Int, resume: CheckedContinuation<Void, Never>)] = []
    private var order = 0
    private var running = 0
    private var lastCommentID = 0
    private var report = Report()
    private var tasks: [String: (end: Date, number: Int, succeeds: Bool)] = [:]

    private struct Entry {
        var issue: Issue
        var comments: [IssueComment] = []
        var hasPullRequest = false
        var workers = 0
        var version = 0
        var firstStart: Date?
    }

    package struct SplitMix: RandomNumberGenerator {
        private var state: UInt64
        package init(_ seed: UInt64) { state = seed }
        package mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
            return mixed ^ (mixed >> 31)
        }
    }

    package init(_ options: Options) throws {
        self.options = options
        loop = try EventLoop()
        random = SplitMix(options.seed)
        for number in 1...options.issues {
            issues[number] = Entry(
                issue: Issue(
                    number: number, title: "Issue \(number)", url: "https://github.com/o/r/issues/\(number)",
                    createdAt: start.addingTimeInterval(-86_400 - Double(number))))
        }
    }

    // MARK: Time

    fileprivate func sleep(_ seconds: Double) async {
        let wake = time.addingTimeInterval(max(0, seconds))
        order += 1
        let order = order
        await withCheckedContinuation { continuation in
            sleepers.append((wake, order, continuation))
            running -= 1
            if running == 0 { advance() }
        }
    }

    /// All sleep: the first to wake comes next.
    private func advance() {
        guard
            let index = sleepers.indices.min(by: {
                (sleepers[$0].wake, sleepers[$0].order) < (sleepers[$1].wake, sleepers[$1].order)
            })
        else { return loop.stop() }
        let next = sleepers.remove(at: index)
        time = max(time, next.wake)
        running += 1
        next.resume.resume()
    }

    private func chance() -> Double { Double.random(in: 0..<1, using: &random) }

    /// One request's way to GitHub and back.
    fileprivate func latency() async {
        report.requests += 1
        await sleep(0.05 + chance() * 0.5)
    }

    // MARK: Running

    package func run() -> Report {
        running = options.nodes
        for number in 0..<options.nodes {
            let error = (chance() * 2 - 1) * options.clockErrorSeconds
            let firstPause = chance() * options.intervalSeconds
            let crashes = (0..<options.crashes).filter { $0 % options.nodes == number }.map { _ in chance() * 1800 }
                .sorted()
            _ = Task(executorPreference: loop) { [self] in
                await runNode(number, clockError: error, firstPause: firstPause, crashes: crashes)
                running -= 1
                if running == 0 { advance() }
            }
        }
        loop.run()
        report.hours = time.timeIntervalSince(start) / 3600
        for entry in issues.values {
            if entry.hasPullRequest { report.succeeded += 1 }
            if entry.firstStart == nil { report.unworked += 1 }
            if let first = entry.firstStart { report.startTimes.append(first.timeIntervalSince(start)) }
            let standing = ClaimProtocol.standing(entry.comments, assignees: entry.issue.assignees, now: time)
            report.claimsLeft += standing.count
            if !entry.hasPullRequest {
                report.labelsLeft += entry.issue.labels.count { $0.hasPrefix("status:") && $0 != "status:blocked" }
            }
        }
        return report
    }

    private func runNode(_ number: Int, clockError: Double, firstPause: Double, crashes: [Double]) async {
        let node = SimulatedNode(self, name: "node-\(number)", clockError: clockError)
        await sleep(firstPause)
        var saved = PulseState(device: node.name)
        let end = start.addingTimeInterval(options.hours * 3600)
        var crashes = crashes
        while time < end {
            node.crashAt = crashes.isEmpty ? nil : start.addingTimeInterval(crashes[0])
            node.isDead = false
            var engineOptions = PulseEngine.Options()
            engineOptions.version = "0"
            let engine = PulseEngine(
                gitHub: node, nodes: node, clock: node, state: saved, options: engineOptions,
                save: { state in
                    if !node.isDead { saved = state }
                    return !node.isDead
                })
            while time < end, !node.isDead {
                _ = await engine.round([PulseRepository(slug: "o/r")])
                if !node.isDead { await sleep(options.intervalSeconds) }
                if isAllDone { break }
            }
            if node.isDead {
                crashes.removeFirst()
                await sleep(30)
            } else {
                await engine.settle()
                if isAllDone, engine.state.claims.isEmpty { return }
            }
        }
        // What is still claimed at the end runs out with its worker.
        node.isDead = false
    }

    private var isAllDone: Bool { issues.values.allSatisfy(\.hasPullRequest) }

    // MARK: What the nodes do

    fileprivate var now: Date { time }

    fileprivate func openIssues() -> [Issue] { issues.values.map(\.issue).sorted { $0.number > $1.number } }
    fileprivate func issue(_ number: Int) -> Issue? { issues[number]?.issue }
    fileprivate func comments(_ number: Int) -> [IssueComment] { issues[number]?.comments ?? [] }
    fileprivate func hasPullRequest(_ number: Int) -> Bool { issues[number]?.hasPullRequest ?? false }

    fileprivate func post(_ body: String, _ number: Int, by author: String) -> IssueComment {
        lastCommentID += 1
        let second = Date(timeIntervalSince1970: time.timeIntervalSince1970.rounded(.down))
        let comment = IssueComment(
            id: lastCommentID, author: author, association: "MEMBER", body: body, createdAt: second)
        issues[number]?.comments.append(comment)
        if body.contains("DISPATCH_CLAIM") { report.claimsPosted += 1 }
        return comment
    }

    fileprivate func deleteComment(_ id: Int) {
        for number in issues.keys {
            guard let index = issues[number]?.comments.firstIndex(where: { $0.id == id }) else { continue }
            issues[number]?.comments.remove(at: index)
            report.claimsLost += 1
        }
    }

    fileprivate func editIssue(_ number: Int, _ change: (inout Issue) -> Void) {
        guard var entry = issues[number] else { return }
        change(&entry.issue)
        issues[number] = entry
    }

    fileprivate func startTask(_ id: String, _ number: Int) {
        guard var entry = issues[number] else { return }
        if entry.workers > 0 || entry.hasPullRequest { report.workedTwiceAtOnce += 1 }
        entry.workers += 1
        entry.firstStart = entry.firstStart ?? time
        issues[number] = entry
        let minutes = 3 + chance() * 40
        tasks[id] = (time.addingTimeInterval(minutes * 60), number, chance() >= options.failureShare)
    }

    fileprivate func fate(_ id: String) -> PulseFate {
        guard let task = tasks[id] else { return .unknown }
        guard task.end <= time else { return .active }
        if issues[task.number]?.workers ?? 0 > 0 { issues[task.number]?.workers -= 1 }
        if task.succeeds { issues[task.number]?.hasPullRequest = true }
        return .ended(
            PulseEnd(
                state: task.succeeds ? .succeeded : .failed, outcome: task.succeeds ? .pullRequest : nil,
                reason: "it ended",
                pullRequest: task.succeeds ? "https://github.com/o/r/pull/\(task.number)" : nil))
    }

    fileprivate func activeTasks(of node: String) -> Int {
        tasks.count { $0.key.hasSuffix("@" + node) && $0.value.end > time }
    }
}

/// One node of the simulation: its view of GitHub, its slots and its clock. Runs on the simulation's loop.
private final class SimulatedNode: GitHub, PulseNodes, PulseClock, @unchecked Sendable {
    let name: String
    private let world: PulseSimulation
    private let clockError: Double
    var crashAt: Date?
    var isDead = false

    init(_ world: PulseSimulation, name: String, clockError: Double) {
        self.world = world
        self.name = name
        self.clockError = clockError
    }

    /// A dead node does nothing more, wherever it was.
    private func ask<Value>(_ body: () -> Value?) async throws(GitHubFailure) -> Value {
        if !isDead { await world.latency() }
        if let crashAt, world.now >= crashAt { isDead = true }
        guard !isDead else { throw GitHubFailure(.unreachable, "dead") }
        guard let value = body() else { throw GitHubFailure(.notFound, "not there") }
        return value
    }

    func login() async throws(GitHubFailure) -> String { name }
    func openIssues(of repo: String) async throws(GitHubFailure) -> [Issue] { try await ask { world.openIssues() } }
    func issue(_ number: Int, of repo: String) async throws(GitHubFailure) -> Issue {
        try await ask { world.issue(number) }
    }
    func comments(on number: Int, of repo: String) async throws(GitHubFailure) -> [IssueComment] {
        try await ask { world.comments(number) }
    }
    func comment(_ body: String, on number: Int, of repo: String) async throws(GitHubFailure) -> IssueComment {
        try await ask { world.post(body, number, by: name) }
    }
    func deleteComment(_ id: Int, of repo: String) async throws(GitHubFailure) {
        try await ask { world.deleteComment(id) }
    }
    func addLabels(_ labels: [String], to number: Int, of repo: String) async throws(GitHubFailure) {
        try await ask {
            world.editIssue(number) { issue in issue.labels += labels.filter { !issue.labels.contains($0) } }
        }
    }
    func removeLabel(_ label: String, from number: Int, of repo: String) async throws(GitHubFailure) {
        try await ask { world.editIssue(number) { issue in issue.labels.removeAll { $0 == label } } }
    }
    func assign(_ login: String, to number: Int, of repo: String) async throws(GitHubFailure) {
        try await ask {
            world.editIssue(number) { issue in if !issue.assignees.contains(login) { issue.assignees.append(login) } }
        }
    }
    func unassign(_ login: String, from number: Int, of repo: String) async throws(GitHubFailure) {
        try await ask { world.editIssue(number) { issue in issue.assignees.removeAll { $0 == login } } }
    }
    func hasPullRequest(for number: Int, of repo: String) async throws(GitHubFailure) -> Bool {
        try await ask { world.hasPullRequest(number) }
    }
    func branches(beginning prefix: String, of repo: String) async throws(GitHubFailure) -> [String] {
        try await ask { [] }
    }
    var budget: GitHubBudget { get async { GitHubBudget() } }

    func nodes() async -> [PulseNode] {
        let free = isDead ? 0 : max(0, world.options.slots - world.activeTasks(of: name))
        return [PulseNode(name: name, free: free, all: world.options.slots)]
    }

    func place(_ request: DispatchRequest) async -> PulsePlacement {
        guard !isDead, let id = request.id, let number = request.issue?.number else { return .refused("dead") }
        world.startTask(id + "@" + name, number)
        return .placed(host: nil, pid: 1)
    }

    func fate(of taskID: String, on host: String?) async -> PulseFate { world.fate(taskID + "@" + name) }

    var now: Date { world.now.addingTimeInterval(clockError) }
    func sleep(_ duration: Duration) async -> Bool {
        if !isDead { await world.sleep(duration.seconds) }
        if let crashAt, world.now >= crashAt { isDead = true }
        return !isDead
    }
    func nonce() -> String {
        (0..<32).map { _ in String(Int.random(in: 0..<16), radix: 16) }.joined()
    }
}
