import CSystem
import Dispatch
import FoundationEssentials
import Glibc
import Supervision
import Synchronization
import TestSupport
import Testing

/// The pulse of real nodes against a stand-in of GitHub's API: real HTTP, real git, real workers.
@Suite(.timeLimit(.minutes(10)))
struct PulseEndToEndTests {
    /// Works on an issue as an agent would: says what it was given, opens a pull request, and names it.
    private static let agent = """
        cat > prompt
        echo "$WORKER_ISSUE_NUMBER" >> SHARED/worked
        env | grep -E '^(WORKER_|AIDEVOPS_|HEADLESS)' | sort
        cat prompt; echo
        case $WORKER_ISSUE_NUMBER in 13) exit 3;; 14) sleep 600;; esac
        curl -sf -H "Authorization: Bearer $GH_TOKEN" -d "{\\"issue\\": $WORKER_ISSUE_NUMBER}" GITHUB/repos/o/r/pulls > /dev/null
        echo "https://github.com/o/r/pull/$WORKER_ISSUE_NUMBER"
        echo FULL_LOOP_COMPLETE
        """

    private func node(
        _ gitHub: TestGitHub, token: String, shared: TemporaryFolder, settle: Double = 0.2, slots: Int = 2,
        more: String = "", hosts: String? = nil
    ) throws -> TestNode {
        let agent = Self.agent.replacing("SHARED", with: shared.path).replacing("GITHUB", with: gitHub.url)
        let node = try TestNode(
            agent: agent,
            settings: """
                "worker": {"max_concurrent": \(slots), "ram_per_worker_mb": 1, "cancel_grace_seconds": 1, "restart": {"policy": "never"}},
                "sandbox": {"write_paths": ["\(shared.path)"]},
                "pulse": {"api_url": "\(gitHub.url)", "settle_seconds": \(settle)\(more)}
                """)
        node.environment["GH_TOKEN"] = token
        node.environment["XDG_CONFIG_HOME"] = node.folder.path
        if let hosts {
            try Files.makeFolders(node.folder.path + "/aidevops")
            try node.folder.write("aidevops/remote-hosts.json", hosts)
        }
        try node.folder.write(
            "data/config/repos.json", #"{"initialized_repos": [{"slug": "o/r", "path": "/r", "pulse": true}]}"#)
        try node.makeRepository("o/r")
        try node.start()
        return node
    }

    private func gitHub(_ logins: [String: String] = ["token-of-node-a": "node-a"]) throws -> TestGitHub {
        let gitHub = try TestGitHub()
        gitHub.edit { $0.logins = logins }
        return gitHub
    }

    private struct Pulse: Decodable {
        struct Decision: Decodable {
            var number: Int
            var verdict: String
            var reason: String
        }
        struct Claim: Decodable { var issue: String }
        var decisions: [Decision]
        var problems: [String]
        var claims: [Claim]

        func verdict(_ number: Int) -> String? { decisions.first { $0.number == number }?.verdict }
    }

    private func round(_ node: TestNode, isDry: Bool = false) throws -> Pulse {
        let answer = try node.request("POST", "/pulse" + (isDry ? "?dry_run=1" : ""))
        #expect(answer.status == 200, "\(answer.body)")
        return try JSONDecoder().decode(Pulse.self, from: Data(answer.body.utf8))
    }

    private func task(_ node: TestNode, _ number: Int) throws -> String? {
        let list = try node.request("GET", "/tasks").body
        guard let start = list.range(of: "issue-o-r-\(number)-") else { return nil }
        return "issue-o-r-\(number)-" + list[start...].prefix { $0 != "\"" }
    }

    @Test func anIssueIsClaimedWorkedOnAndReleased() throws {
        let (gitHub, shared) = (try gitHub(), try TemporaryFolder())
        defer { gitHub.stop() }
        gitHub.add(
            [
                .init(7, "Make it <better>", labels: ["bug", "status:available"]), .init(8, labels: ["needs-info"]),
                .init(9, labels: ["critical"]),
            ], to: "o/r")
        gitHub.edit { state in
            state.issues["o/r"]?[9]?.pullRequest = "merged"
            state.issues["o/r"]?[7]?.comments = (0..<150).map {
                .init(id: $0, author: "x", body: "Comment \($0)", createdAt: Date(timeIntervalSince1970: 1_700_000_000))
            }
        }
        let node = try node(gitHub, token: "token-of-node-a", shared: shared)
        let dry = try round(node, isDry: true)
        #expect(dry.verdict(7) == "chosen" && dry.verdict(8) == "skipped" && dry.verdict(9) == "chosen")
        #expect(gitHub.issue(7, of: "o/r")?.comments.count == 150 && gitHub.issue(7, of: "o/r")?.assignees == [])
        let first = try round(node)
        #expect(first.verdict(7) == "launched" && first.verdict(9) == "skipped", "\(first)")
        let id = try #require(try task(node, 7))
        let log = try node.followToEnd(id)
        for line in [
            "WORKER_ISSUE_NUMBER=7", "WORKER_REPO_SLUG=o/r", "WORKER_GITHUB_LOGIN=node-a", "HEADLESS=1",
            "/full-loop Implement issue #7 (https://github.com/o/r/issues/7)",
        ] { #expect(log.contains(line), "\(line) in \(log)") }
        #expect(log.contains { $0.hasPrefix("AIDEVOPS_DISPATCH_LEASE_TOKEN=") })
        #expect(log.contains { $0.contains("on branch feature/auto-") && $0.contains("-gh7 ") })
        let during = try #require(gitHub.issue(7, of: "o/r"))
        #expect(during.assignees == ["node-a"] && during.labels.sorted() == ["bug", "status:in-progress"])
        let words = during.comments.dropFirst(150).map(\.body)
        #expect(words[0].contains("DISPATCH_CLAIM nonce=") && words[1].contains("DISPATCH_LEASE phase=prelaunch"))
        #expect(
            words[2].contains("DISPATCH_LEASE phase=ready") && words[3].hasPrefix("Dispatching worker (deterministic).")
        )
        _ = try round(node)
        let after = try #require(gitHub.issue(7, of: "o/r"))
        // The pull request stands, and so does the assignment.
        #expect(after.assignees == ["node-a"] && after.comments.last?.body.contains("CLAIM_RELEASED reason=") == true)
        #expect(try round(node).claims.isEmpty)
        #expect(gitHub.edit { $0.notModified } > 0)
    }

    @Test func whatFailsIsReleasedAndLeftForLater() throws {
        let (gitHub, shared) = (try gitHub(), try TemporaryFolder())
        defer { gitHub.stop() }
        gitHub.add([.init(13)], to: "o/r")
        let node = try node(gitHub, token: "token-of-node-a", shared: shared)
        #expect(try round(node).verdict(13) == "launched")
        _ = try node.followToEnd(try #require(try task(node, 13)))
        let next = try round(node)
        #expect(next.decisions.first { $0.number == 13 }?.reason.contains("tried again at") == true, "\(next)")
        let issue = try #require(gitHub.issue(13, of: "o/r"))
        #expect(issue.assignees == [] && issue.labels == [])
        #expect(
            issue.comments.contains { $0.body.contains("CLAIM_RELEASED reason=failed") && $0.body.contains("exit=3") })
    }

    @Test func faultsAndLimitsFailClosed() throws {
        let (gitHub, shared) = (try gitHub(), try TemporaryFolder())
        defer { gitHub.stop() }
        gitHub.add([.init(7)], to: "o/r")
        let node = try node(gitHub, token: "token-of-node-a", shared: shared)
        // The claim can't be made; it can, but the race can't be read; the assignment fails.
        for fault in ["POST /repos/o/r/issues/7/comments", "POST /repos/o/r/issues/7/assignees"] {
            gitHub.edit { $0.faults = [(fault, TestGitHub.plain(422, #"{"message":"no"}"#))] }
            let failed = try round(node)
            #expect(failed.verdict(7) == "failed", "\(failed)")
            #expect(failed.claims.isEmpty && gitHub.issue(7, of: "o/r")?.assignees == [])
            #expect(gitHub.issue(7, of: "o/r")?.comments.contains { $0.body.contains("DISPATCH_CLAIM") } == false)
        }
        let limit = TestGitHub.plain(
            403, #"{"message":"You have exceeded a secondary rate limit"}"#, headers: "Retry-After: 600\r\n")
        gitHub.edit { $0.faults = [("GET /repos/o/r/issues", limit)] }
        #expect(try round(node).problems.contains { $0.contains("limit is reached until") })
        let before = gitHub.edit { $0.requests.count }
        #expect(try round(node).problems.contains { $0.contains("isn't asked before") })
        #expect(gitHub.edit { $0.requests.count } == before)
        #expect(!Files.exists(shared.path + "/worked"))
        #expect(try node.request("GET", "/health").status == 200)
    }

    @Test func aNearlySpentBudgetIsKeptForEnds() throws {
        let (gitHub, shared) = (try gitHub(), try TemporaryFolder())
        defer { gitHub.stop() }
        gitHub.add([.init(7)], to: "o/r")
        gitHub.edit { $0.remaining = 90 }
        let node = try node(gitHub, token: "token-of-node-a", shared: shared)
        #expect(try round(node).problems.contains { $0.contains("are left of GitHub's limit") })
        #expect(try node.request("GET", "/status").body.contains(#""requests_left":"#))
        #expect(!Files.exists(shared.path + "/worked"))
    }

    /// Two nodes, 50 issues, rounds at random moments until all is done.
    @Test func twoNodesWorkEachIssueOnce() throws {
        let gitHub = try gitHub(["token-of-node-a": "node-a", "token-of-node-b": "node-b"])
        defer { gitHub.stop() }
        let shared = try TemporaryFolder()
        gitHub.add((101...150).map { .init($0) }, to: "o/r")
        // Each thread uses its own.
        nonisolated(unsafe) let nodes = try ["token-of-node-a", "token-of-node-b"].map {
            try node(gitHub, token: $0, shared: shared, settle: 0.15, slots: 2)
        }
        let rounds = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: 2) { index in
            for _ in 0..<200 {
                _ = try? round(nodes[index])
                rounds.add(1, ordering: .relaxed)
                let open = gitHub.edit { $0.issues["o/r"]?.values.contains { $0.pullRequest == nil } ?? false }
                if !open { break }
                poll(nil, 0, Int32.random(in: 0..<50))
            }
        }
        let worked = try shared.read("worked").split(separator: "\n").compactMap { Int($0) }
        #expect(worked.sorted() == Array(101...150), "\(worked.sorted())")
        #expect(rounds.load(ordering: .relaxed) >= 20)
        #expect(TestEnvironment.eventually { (try? node(nodes, areIdle: true)) == true })
        for node in nodes { _ = try round(node) }
        let left = gitHub.edit { state in
            (state.issues["o/r"] ?? [:]).values.flatMap {
                ClaimProtocol.standing($0.comments.map(\.plain), assignees: [], now: Date())
            }
        }
        #expect(left == [])
    }

    private func node(_ nodes: [TestNode], areIdle: Bool) throws -> Bool {
        try nodes.allSatisfy { try $0.request("GET", "/workers").body == #"{"workers":[]}"# }
    }

    @Test func aNodeThatDiesInItsClaimLeavesNothing() throws {
        let (gitHub, shared) = (try gitHub(), try TemporaryFolder())
        defer { gitHub.stop() }
        gitHub.add([.init(7)], to: "o/r")
        let node = try node(
            gitHub, token: "token-of-node-a", shared: shared, settle: 60,
            more: #", "enabled": true, "interval_seconds": 10"#)
        #expect(
            TestEnvironment.eventually {
                gitHub.issue(7, of: "o/r")?.comments.contains { $0.body.contains("DISPATCH_CLAIM") } == true
            })
        node.kill()
        let configuration = try node.folder.read("data/config/worker.json")
        try node.writeConfiguration(
            configuration.replacing("\"settle_seconds\": 60.0", with: "\"settle_seconds\": 0.2"))
        try node.start()
        #expect(TestEnvironment.eventually { (try? shared.read("worked")) == "7\n" })
        let claims = gitHub.issue(7, of: "o/r")?.comments.filter { $0.body.contains("DISPATCH_CLAIM") } ?? []
        #expect(claims.count == 1)
    }

    @Test func whatFindsNoSlotHereGoesToAnotherNode() throws {
        let gitHub = try gitHub(["token-of-node-a": "node-a", "token-of-node-b": "node-b"])
        defer { gitHub.stop() }
        let shared = try TemporaryFolder()
        let far = try node(gitHub, token: "token-of-node-b", shared: shared, slots: 1)
        let hosts = """
            {"hosts": {"far": {"address": "127.0.0.1:\(far.port)", "transport": "http", "auth_token": "\(far.token)"},
             "dead": {"address": "127.0.0.1:1", "transport": "http", "auth_token": "x"}, "old": {"address": "me@old"}}}
            """
        let near = try node(gitHub, token: "token-of-node-a", shared: shared, slots: 1, hosts: hosts)
        gitHub.add([.init(14), .init(15), .init(16)], to: "o/r")
        gitHub.edit { state in state.issues["o/r"]?[14]?.labels = ["critical"] }
        let first = try round(near)
        #expect(first.verdict(14) == "launched" && first.verdict(15) == "launched", "\(first)")
        #expect(first.decisions.first { $0.number == 14 }?.reason == "on this node")
        #expect(first.decisions.first { $0.number == 15 }?.reason == "on far" && first.verdict(16) == "waits")
        let id = try #require(try task(far, 15))
        let log = try far.followToEnd(id)
        #expect(log.contains("WORKER_GITHUB_LOGIN=node-a") && log.contains("FULL_LOOP_COMPLETE"))
        #expect(try round(near).claims.map(\.issue).sorted() == ["o/r#14", "o/r#16"])
        #expect(gitHub.issue(15, of: "o/r")?.comments.last?.body.contains("CLAIM_RELEASED") == true)
    }

    @Test func theCommandTellsWhatWouldBeDone() throws {
        let (gitHub, shared) = (try gitHub(), try TemporaryFolder())
        defer { gitHub.stop() }
        gitHub.add([.init(7, "Wanted"), .init(8, labels: ["needs-info"])], to: "o/r")
        let node = try node(gitHub, token: "token-of-node-a", shared: shared)
        let command = Command(
            path: TestEnvironment.executable, arguments: ["aidevops-worker", "pulse", "--once", "--dry-run"],
            environment: [
                "PATH": "/usr/bin:/bin", "AIDEVOPS_WORKER_URL": "http://127.0.0.1:\(node.port)",
                "AIDEVOPS_DATA_DIR": node.data,
            ])
        let output = try command.run().outputText
        #expect(output.contains("o/r#7") && output.contains("chosen") && output.contains("Wanted"), "\(output)")
        #expect(output.contains("o/r#8") && output.contains("it has the label needs-info"))
        #expect(gitHub.issue(7, of: "o/r")?.comments.isEmpty == true)
    }
}

extension TestGitHub.Comment {
    fileprivate var plain: IssueComment {
        IssueComment(id: id, author: author, association: association, body: body, createdAt: createdAt)
    }
}
