import Supervision
import TestSupport
import Testing

/// The main job on the built program: dispatch, clone, agent, commit, push, log.
@Suite(.timeLimit(.minutes(5)))
struct MainJobTests {
    private static let pusher = """
        set -eu
        echo "prompt: $(cat)"
        echo "$AIDEVOPS_TASK_ID" > "$AIDEVOPS_TASK_ID.txt"
        git add . && git commit -qm "Work of $AIDEVOPS_TASK_ID"
        git push -q origin HEAD
        echo TASK_COMPLETE
        """

    @Test func aTaskIsClonedWorkedOnAndPushed() throws {
        let node = try TestNode(agent: Self.pusher)
        try node.makeRepository("o/r")
        try node.start()
        let answer = try node.dispatch("one", more: #""branch": "feature/x""#)
        #expect(answer.status == 202)
        #expect(answer.body.contains(#""status":"dispatched""#) && answer.body.contains(#""pid":"#))
        let log = try node.followToEnd("one")
        #expect(log.contains("prompt: Do it."))
        #expect(log.contains { $0.contains("creating it from its default branch main") })
        #expect(log.dropLast().last?.hasPrefix("[EXIT:0] ") == true)
        #expect(
            try TestEnvironment.run(
                "git", ["--git-dir", node.repository("o/r"), "log", "-1", "--format=%s", "feature/x"]) == "Work of one")
        let view = try node.worker("one")
        #expect(view.contains(#""state":"succeeded""#) && view.contains(#""outcome":"complete""#))
        #expect(view.contains(#""commits":1"#) && view.contains(#""unpushed_commits":0"#))
        #expect(try node.folder.read("data/logs/one.log").contains("[EXIT:0] "))
        #expect(try node.request("DELETE", "/workers/one").status == 404)
        #expect(node.stop() == 0)
    }

    @Test func thePidIsTheWorkersOwnFromCloneToEnd() throws {
        let node = try TestNode(agent: "cat > /dev/null; echo parent=$PPID; echo TASK_COMPLETE")
        try node.makeRepository("o/r")
        try node.start()
        let answer = try node.dispatch("pid")
        let pid = answer.body[try #require(answer.body.range(of: #""pid":"#))...].prefix { $0.isNumber }
        #expect(try node.followToEnd("pid").contains("parent=\(pid)"))
    }

    @Test func twoTasksOnOneRepositoryBothPush() throws {
        let node = try TestNode(agent: Self.pusher)
        try node.makeRepository("o/r")
        try node.start()
        for id in ["a", "b"] { #expect(try node.dispatch(id, more: #""branch": "branch-\#(id)""#).status == 202) }
        for id in ["a", "b"] {
            _ = try node.followToEnd(id)
            #expect(try node.state(id) == "succeeded")
            let repository = node.repository("o/r")
            #expect(
                try TestEnvironment.run("git", ["--git-dir", repository, "log", "-1", "--format=%s", "branch-\(id)"])
                    == "Work of \(id)")
        }
    }

    @Test func ofManyRacingDispatchesExactlyTheSlotsAreTaken() async throws {
        let node = try TestNode(agent: "cat > /dev/null; echo started; exec sleep 300")
        try node.makeRepository("o/r")
        try node.start()
        let (port, token) = (node.port, node.token)
        let codes = try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 0..<20 {
                group.addTask {
                    let body = #"{"task_id": "race-\#(number)", "repo": "o/r", "prompt": "x"}"#
                    return try TestConnection(port: port).request(
                        "POST", "/dispatch", token: token, body: Array(body.utf8)
                    ).status
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(codes.count { $0 == 202 } == 2)
        #expect(codes.count { $0 == 429 } == 18)
        let full = try node.dispatch("late")
        #expect(full.status == 429 && full.headers["retry-after"] != nil)
        #expect(full.body.contains(#""active":2"#) && full.body.contains(#""max":2"#))
    }

    @Test(arguments: [
        ("no-such-repo", "o/missing", "", "fetch: git fetch of"),
        ("no-such-agent", "o/r", #""agent": {"preset": "claude"}"#, "the agent program claude isn't on PATH"),
    ])
    func whatGoesWrongIsToldInTheState(id: String, repo: String, settings: String, sentence: String) throws {
        let node = try TestNode(agent: "", settings: "")
        try node.makeRepository("o/r")
        if !settings.isEmpty {
            try node.writeConfiguration(
                #"{"dispatch": {"auth_token": "\#(node.token)"}, "git": {"base_url": "file://\#(node.folder.path)/remote"}, \#(settings)}"#
            )
            node.environment["PATH"] = "/usr/bin:/bin"
        }
        try node.start()
        #expect(try node.dispatch(id, repo: repo).status == 202)
        let log = try node.followToEnd(id)
        #expect(log.contains { $0.hasPrefix("WORKER_DISPATCH_ERROR ") })
        let view = try node.worker(id)
        #expect(view.contains(#""state":"failed""#) && view.contains(sentence), "\(view)")
    }

    @Test func gitMissingIsToldWithHowToInstallIt() throws {
        let node = try TestNode(agent: "true")
        try node.makeRepository("o/r")
        node.environment["PATH"] = node.folder.path
        try node.start()
        #expect(try node.dispatch("no-git").status == 202)
        _ = try node.followToEnd("no-git")
        #expect(try node.worker("no-git").contains("git isn't on PATH"))
    }

    @Test func theDefaultBranchStandsInForAMissingMain() throws {
        let node = try TestNode(agent: "cat > /dev/null; git branch --show-current; echo TASK_COMPLETE")
        try node.makeRepository("o/trunk", branch: "trunk")
        try node.start()
        #expect(try node.dispatch("t", repo: "o/trunk").status == 202)
        #expect(try node.followToEnd("t").contains("trunk"))
    }

    @Test func anEmptyRepositoryIsStartedIn() throws {
        let node = try TestNode(agent: Self.pusher)
        try node.start()
        try TestEnvironment.run(
            "git", ["init", "-q", "--bare", "--initial-branch", "main", node.repository("o/empty")])
        #expect(try node.dispatch("first", repo: "o/empty").status == 202)
        _ = try node.followToEnd("first")
        #expect(try node.state("first") == "succeeded")
        #expect(
            try TestEnvironment.run(
                "git", ["--git-dir", node.repository("o/empty"), "log", "-1", "--format=%s", "main"]) == "Work of first"
        )
    }

    @Test func theAgentSeesTheAllowlistedEnvironmentAndNothingElse() throws {
        let node = try TestNode(agent: "cat > /dev/null; env | sort; echo TASK_COMPLETE", settings: "")
        try node.makeRepository("o/r")
        node.environment["GH_TOKEN"] = "ghp_0123456789abcdefghij"
        node.environment["NODE_ONLY_VARIABLE"] = "1"
        try node.start()
        _ = try node.dispatch("env")
        let log = try node.followToEnd("env")
        #expect(
            log.contains("AIDEVOPS_TASK_ID=env") && log.contains("HEADLESS=1") && log.contains("WORKER_REPO_SLUG=o/r"))
        #expect(log.contains("GH_TOKEN=***"))
        #expect(log.contains { $0.hasPrefix("HOME=\(node.data)/workspace/tasks/env/home") })
        #expect(!log.contains { $0.hasPrefix("NODE_ONLY_VARIABLE") })
        #expect(!log.contains { $0.contains(node.token) })
        #expect(!(try node.folder.read("data/logs/env.log")).contains("ghp_0123456789abcdefghij"))
    }

    @Test func configurationEditsTakeEffectAndBrokenOnesDoNot() throws {
        let node = try TestNode(agent: "true")
        try node.start()
        #expect(try node.request("GET", "/status", authenticated: false).body.contains(#""max":2"#))
        try node.writeConfiguration(agent: "true", settings: #""worker": {"max_concurrent": 7}, "bogus": {"a": 1}"#)
        #expect(try TestEnvironment.eventually { try node.request("GET", "/status").body.contains(#""max":7"#) })
        #expect(try node.request("GET", "/status").body.contains("bogus.a means nothing"))
        try node.writeConfiguration(#"{"dispatch": {"auth_token": 5}, "worker": {"max_concurrent": 0}}"#)
        #expect(
            try TestEnvironment.eventually {
                try node.request("GET", "/status").body.contains("worker.json is not in force")
            })
        let status = try node.request("GET", "/status").body
        #expect(
            status.contains(#""max":7"#)
                && status.contains("worker.max_concurrent must be a whole number from 1 to 1000"))
        #expect(try node.request("GET", "/workers").status == 200)
    }

    @Test func theFirstRunMakesEverythingAndPrintsTheTokenOnce() throws {
        let node = try TestNode(agent: "true")
        try Files.remove(node.data)
        try node.start()
        let line = try #require(node.printed.first { $0.hasPrefix("AUTH TOKEN: ") })
        let token = String(line.dropFirst("AUTH TOKEN: ".count))
        #expect(token.count == 64 && token.allSatisfy(\.isHexDigit))
        #expect(try TestConnection(port: node.port).request("GET", "/workers", token: token).status == 200)
        #expect(try TestEnvironment.run("stat", ["-c", "%a", node.data + "/config/worker.json"]) == "600")
        node.stop()
        try node.start()
        #expect(!node.printed.contains { $0.hasPrefix("AUTH TOKEN") })
        #expect(try TestConnection(port: node.port).request("GET", "/workers", token: token).status == 200)
    }

    @Test func aTakenPortAndAnUnusableFolderAreOneSentence() throws {
        let node = try TestNode(agent: "true")
        try node.start()
        func serve(_ arguments: [String]) throws -> Command.Result {
            try Command(
                path: TestEnvironment.executable, arguments: ["aidevops-worker", "serve"] + arguments,
                environment: ["PATH": "/usr/bin:/bin"]
            ).run()
        }
        let taken = try serve(["--port", String(node.port), "--data-dir", node.folder.path + "/other"])
        #expect(taken.status == .exited(1) && taken.errorText.contains("is taken by another program"))
        let locked = try serve(["--port", "0", "--data-dir", node.data])
        #expect(locked.status == .exited(1) && locked.errorText.contains("another node uses the data folder"))
        try node.folder.write("file", "x")
        let noFolder = try serve(["--port", "0", "--data-dir", node.folder.path + "/file"])
        #expect(noFolder.status == .exited(1) && noFolder.errorText.contains("the data folder can't be used"))
        #expect(try serve(["--prot", "1"]).status == .exited(2))
        #expect(try serve(["--prot", "1"]).errorText.contains("did you mean --port?"))
    }

    @Test func theDemoRuns() throws {
        let output = try TestEnvironment.run(TestEnvironment.executable, ["demo"])
        #expect(output.contains("the task went from HTTP to a pushed branch"))
    }
}
