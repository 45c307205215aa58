import FoundationEssentials
import TestSupport
import Testing

@testable import Supervision

@Suite struct PulseRepositoryTests {
    private func read(_ entries: String) throws -> PulseRepositories {
        try PulseRepositories(decoding: Array(#"{"initialized_repos": [\#(entries)], "git_parent_dirs": []}"#.utf8))
    }

    @Test func onlyWhatIsMeantForThePulseIsTaken() throws {
        let read = try read(
            """
            {"slug": "o/plain", "path": "/p", "pulse": true, "priority": "product", "pulse_hours": {"start": 22, "end": 6},
             "pulse_expires": "2026-12-31", "pulse_interval": 600, "pr_base_branch": "develop", "other": {}},
            {"slug": "o/list", "path": "/p", "pulse": true, "pulse_hours": [9, 17]},
            {"slug": "o/off", "path": "/p", "pulse": false}, {"slug": "o/none", "path": "/p"},
            {"slug": "o/local", "path": "/p", "pulse": true, "local_only": true},
            {"slug": "o/kept", "path": "/p", "pulse": true, "maintenance": false},
            {"slug": "o/theirs", "path": "/p", "pulse": true, "contributed": true}
            """)
        #expect(read.eligible.map(\.slug) == ["o/plain", "o/list"] && read.problems.isEmpty)
        #expect(read.eligible[0].interval == .seconds(600) && read.eligible[0].baseBranch == "develop")
        #expect(read.eligible[0].isProduct && read.eligible[1].priority == "tooling")
    }

    @Test func aBrokenEntryIsToldAndTheRestGoesOn() throws {
        let read = try read(
            """
            {"slug": "bad", "path": "/p", "pulse": true}, 7, {"path": "/p", "pulse": true}, {"slug": "o/x", "pulse": true},
            {"slug": "o/hours", "path": "/p", "pulse": true, "pulse_hours": "always"},
            {"slug": "o/late", "path": "/p", "pulse": true, "pulse_hours": [1, 99]},
            {"slug": "o/fast", "path": "/p", "pulse": true, "pulse_interval": 5},
            {"slug": "o/good", "path": "/p", "pulse": true}, {"slug": "O/Good", "path": "/p", "pulse": true}
            """)
        #expect(read.eligible.map(\.slug) == ["o/good"])
        #expect(read.problems.count == 8, "\(read.problems)")
        #expect(throws: (any Error).self) { try PulseRepositories(decoding: Array("[]".utf8)) }
    }

    @Test(arguments: [
        (22, 6, 23, true), (22, 6, 5, true), (22, 6, 6, false), (9, 17, 9, true), (9, 17, 17, false), (3, 3, 12, true),
    ])
    func hoursWrapMidnight(start: Int, end: Int, hour: Int, isOpen: Bool) {
        var repository = PulseRepository(slug: "o/r")
        repository.hours = (start, end)
        #expect((repository.restPeriod(at: LocalTime(hour: hour, date: "2026-01-01")) == nil) == isOpen)
    }

    @Test func anExpiredPulseRests() {
        var repository = PulseRepository(slug: "o/r")
        repository.expires = "2026-01-01"
        #expect(repository.restPeriod(at: LocalTime(hour: 1, date: "2026-01-01")) == nil)
        #expect(repository.restPeriod(at: LocalTime(hour: 1, date: "2026-01-02")) != nil)
    }
}

@Suite struct EligibilityTests {
    private static let now = Date(timeIntervalSince1970: 1_800_000_000)

    private func issue(_ labels: [String], assignees: [String] = [], age: Double = 3600) -> Supervision.Issue {
        Supervision.Issue(
            number: 1, title: "t", url: "u", labels: labels, assignees: assignees,
            createdAt: Self.now.addingTimeInterval(-age))
    }

    @Test(arguments: [
        "status:blocked", "needs-info", "supervisor", "persistent", "routine-tracking", "infrastructure", "parent-task",
        "meta", "no-auto-dispatch", "hold-for-review", "publication:pending", "status:done", "status:in-progress",
        "status:in-review", "status:claimed",
    ])
    func labelsExclude(label: String) {
        #expect(Eligibility(login: "me").problem(issue([label]), now: Self.now) != nil)
        #expect(Eligibility(login: "me").problem(issue([label.uppercased()]), now: Self.now) != nil)
    }

    @Test func theRulesOfLabelsAndAssignees() {
        let rules = Eligibility(login: "me")
        func may(_ labels: [String], _ assignees: [String] = []) -> Bool {
            rules.problem(issue(labels, assignees: assignees), now: Self.now) == nil
        }
        #expect(may([]) && may(["bug"]) && may(["status:available"]) && may(["status:queued"]))
        #expect(may(["status:in-progress", "auto-dispatch"]) && !may(["status:blocked", "auto-dispatch"]))
        #expect(may([], ["me"]) && may([], ["ME"]) && !may([], ["other"]) && !may(["auto-dispatch"], ["other"]))
        #expect(!may(["origin:interactive"], ["me"]) && may(["origin:interactive", "auto-dispatch"], ["me"]))
        #expect(rules.problem(issue([], age: 10), now: Self.now) != nil)
        var narrow = rules
        narrow.requiredLabel = "Auto-Dispatch"
        #expect(
            narrow.problem(issue([]), now: Self.now) != nil
                && narrow.problem(issue(["auto-dispatch"]), now: Self.now) == nil)
        var closed = issue([])
        closed.isOpen = false
        var pull = issue([])
        pull.isPullRequest = true
        #expect(rules.problem(closed, now: Self.now) != nil && rules.problem(pull, now: Self.now) != nil)
    }

    @Test func scoresAreTheSupervisors() {
        var product = PulseRepository(slug: "o/p")
        product.priority = "product"
        let tooling = PulseRepository(slug: "o/t")
        func score(_ labels: [String], _ repository: PulseRepository, age: Double = 0) -> Int {
            Eligibility.score(issue(labels, age: age), in: repository, now: Self.now)
        }
        #expect(score([], tooling) == 5000 && score([], product) == 4000)
        #expect(score(["critical", "bug"], product) == 11_000 && score(["priority:high"], tooling) == 11_000)
        #expect(
            score(["bug", "tier:simple", "status:available", "good first issue", "auto-dispatch"], tooling) == 13_600)
        #expect(score(["low", "tier:thinking"], tooling) == 4300)
        #expect(score([], tooling, age: 3 * 86_400) == 5075 && score([], tooling, age: 1000 * 86_400) == 5900)
    }
}

@Suite struct ClaimProtocolTests {
    private static let start = Date(timeIntervalSince1970: 1_800_000_000)
    private let me = ClaimProtocol.Speaker(login: "me", device: "d1", version: "1")
    private let other = ClaimProtocol.Speaker(login: "other", device: "d2", version: "1")

    private func comment(_ id: Int, _ body: String, at seconds: Double = 0, association: String = "MEMBER")
        -> IssueComment
    {
        IssueComment(
            id: id, author: "x", association: association, body: body, createdAt: Self.start.addingTimeInterval(seconds)
        )
    }

    private func claim(_ nonce: String, _ speaker: ClaimProtocol.Speaker, clockError: Double = 0) -> String {
        ClaimProtocol.claim(nonce, issue: 7, by: speaker, now: Self.start.addingTimeInterval(clockError))
    }

    private func winners(_ comments: [IssueComment], at seconds: Double = 9, assignees: [String] = []) -> [String] {
        ClaimProtocol.standing(comments, assignees: assignees, now: Self.start.addingTimeInterval(seconds)).map(\.nonce)
    }

    @Test func theFormIsTheFleets() {
        let body = claim("abc", me)
        let lines = body.split(separator: "\n")
        #expect(lines.count == 3 && lines[0].hasPrefix("<!-- ops:start") && lines[2] == "<!-- ops:end -->")
        #expect(
            lines[1]
                == "DISPATCH_CLAIM nonce=abc runner=me ts=2027-01-15T08:00:00Z max_age_s=1800 version=1 opencode_version=unknown "
                + "lease_token=abc device=d1 session=issue-7 phase=prelaunch expires_at=1800000120")
    }

    @Test func theFirstWinsByGitHubsClockAndThenByNonce() {
        #expect(winners([comment(1, claim("b", me)), comment(2, claim("a", other), at: 1)]) == ["b", "a"])
        #expect(winners([comment(1, claim("b", me)), comment(2, claim("a", other))]) == ["a", "b"])
        // What a node's own clock says doesn't count.
        #expect(
            winners([comment(1, claim("b", me, clockError: 5)), comment(2, claim("a", other, clockError: -5), at: 1)])
                == ["b", "a"])
    }

    @Test func strangersDoNotCount() {
        for association in ["NONE", "CONTRIBUTOR", "FIRST_TIMER", ""] {
            #expect(winners([comment(1, claim("a", other), association: association)]) == [])
        }
    }

    @Test func claimsEnd() {
        let claimed = comment(1, claim("a", other))
        #expect(winners([claimed], at: 119) == ["a"] && winners([claimed], at: 121) == [])
        // An assignee has launched, or is about to.
        #expect(winners([claimed], at: 1000, assignees: ["Other"]) == ["a"])
        #expect(winners([claimed], at: 1801, assignees: ["other"]) == [])
        let released = ClaimProtocol.release(
            "done", exit: 0, sessions: 1, by: other, now: Self.start, words: "It ended.")
        #expect(winners([claimed, comment(2, released, at: 5)]) == [])
        #expect(winners([comment(1, released), comment(2, claim("a", other), at: 1)]) == ["a"])
        let foreign = ClaimProtocol.release("done", exit: 0, sessions: 1, by: me, now: Self.start, words: "")
        #expect(winners([claimed, comment(2, foreign, at: 5)]) == ["a"])
    }

    @Test func aLeaseHoldsUntilItsEnd() {
        let claimed = comment(1, claim("a", other))
        let ready = comment(
            2, ClaimProtocol.lease(.ready, token: "a", issue: 7, attempt: "x", by: other, now: Self.start), at: 9)
        let terminal = comment(
            3, ClaimProtocol.lease(.terminal, token: "a", issue: 7, attempt: "x", by: other, now: Self.start), at: 900)
        #expect(winners([claimed, ready], at: 7000) == ["a"])
        #expect(winners([claimed, ready], at: 7300) == [])
        #expect(winners([claimed, ready, terminal], at: 1000) == [])
    }
}

@Suite(.timeLimit(.minutes(5))) struct PulseSimulationTests {
    /// Twenty random interleavings of two nodes whose clocks differ by up to 5 s, some of which die in the middle of it.
    @Test(arguments: 1...20)
    func noIssueIsWorkedTwice(seed: UInt64) throws {
        var options = PulseSimulation.Options()
        options.seed = seed
        options.crashes = seed.isMultiple(of: 2) ? 4 : 0
        options.hours = 12
        let report = try PulseSimulation(options).run()
        #expect(report.workedTwiceAtOnce == 0, "\(report)")
        #expect(report.succeeded == 50, "\(report)")
        #expect(report.claimsLeft == 0 && report.labelsLeft == 0, "\(report)")
    }
}

@Suite struct PulseStateTests {
    private static let now = Date(timeIntervalSince1970: 1_800_000_000)

    @Test func failuresAreTriedAgainLaterAndLater() {
        var state = PulseState(device: "d")
        state.noteFailure("o/r#1", now: Self.now)
        #expect(state.problem("o/r#1", now: Self.now.addingTimeInterval(599)) != nil)
        #expect(state.problem("o/r#1", now: Self.now.addingTimeInterval(601)) == nil)
        state.noteFailure("o/r#1", now: Self.now)
        #expect(state.problem("o/r#1", now: Self.now.addingTimeInterval(1199)) != nil)
        for _ in 0..<3 { state.noteFailure("o/r#1", now: Self.now) }
        #expect(state.problem("o/r#1", now: .distantFuture) == "it failed 5 times")
        #expect(state.problem("o/r#2", now: Self.now) == nil)
    }

    @Test func tenTasksThatDidNothingPauseEverything() {
        var state = PulseState(device: "d")
        for number in 0..<9 { state.noteIdleEnd(now: Self.now.addingTimeInterval(Double(number))) }
        #expect(state.pausedUntil == nil)
        state.noteIdleEnd(now: Self.now.addingTimeInterval(700))
        #expect(state.pausedUntil == nil)
        for number in 0..<9 { state.noteIdleEnd(now: Self.now.addingTimeInterval(701 + Double(number))) }
        #expect(state.pausedUntil != nil)
    }
}
