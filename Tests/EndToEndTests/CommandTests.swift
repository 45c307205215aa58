import CSystem
import FoundationEssentials
import Glibc
import Supervision
import TestSupport
import Testing

/// The command line, as a person or a script uses it.
@Suite(.timeLimit(.minutes(5)))
struct CommandTests {
    private struct Outcome {
        var code: Int32
        var output: String
        var errors: String
    }

    private let home: TemporaryFolder

    init() throws { home = try TemporaryFolder() }

    private func environment(_ node: TestNode?) -> [String: String] {
        var environment = ["PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home.path, "XDG_CONFIG_HOME": home.path]
        if let node {
            environment["AIDEVOPS_WORKER_URL"] = "http://127.0.0.1:\(node.port)"
            environment["AIDEVOPS_DATA_DIR"] = node.data
        }
        return environment
    }

    private func run(_ words: String..., node: TestNode? = nil, input: String = "") throws -> Outcome {
        let result = try Command(
            path: TestEnvironment.executable, arguments: ["aidevops-worker"] + words, environment: environment(node),
            directory: home.path
        ).run(input: Array(input.utf8))
        guard case .exited(let code) = result.status else { throw SystemError("it died", errno: ECHILD) }
        return Outcome(code: code, output: result.outputText, errors: result.errorText)
    }

    private func node(_ agent: String, worker: String = "") throws -> TestNode {
        let node = try TestNode(
            agent: "cat > prompt\n" + agent,
            settings: #""worker": {"cancel_grace_seconds": 1, "ram_per_worker_mb": 1\#(worker)}"#)
        try node.makeRepository("o/r")
        try node.start()
        return node
    }

    @Test func aWholeSession() throws {
        let node = try node(
            "cat prompt; echo; echo more >> README.md; git commit -qam 'Say more'; echo ready; [ $AIDEVOPS_TASK_ID = slow ] && sleep 600; echo TASK_COMPLETE"
        )
        let quick = try run("dispatch", "o/r", "Say more.", "--task-id", "quick", "--wait", node: node)
        #expect(quick.code == 0 && quick.output.contains("quick dispatched on local"))
        #expect(quick.output.contains("quick succeeded: the agent says that the task is complete"))
        let piped = try run(
            "dispatch", "o/r", "--prompt-file", "-", "--task-id", "piped", "--wait", "--json", node: node,
            input: "From a pipe.")
        #expect(piped.code == 0)
        #expect(try JSONDecoder().decode([String: TestAny].self, from: Data(piped.output.utf8))["state"] != nil)
        #expect(try run("logs", "piped", node: node).output.contains("From a pipe."))
        #expect(try run("dispatch", "o/r", "x", "--task-id", "slow", node: node).code == 0)
        #expect(try node.awaitLog("slow", "ready"))
        let list = try run("ps", node: node)
        #expect(list.output.contains("TASK") && list.output.contains("slow") && !list.output.contains("quick"))
        let all = try run("ps", "--all", "--state", "succeeded", "--repo", "o/r", node: node)
        #expect(all.output.contains("quick") && all.output.contains("piped") && !all.output.contains("slow"))
        #expect(try run("status", node: node).output.contains("workers   1 of 2"))
        let changes = try run("changes", "slow", node: node)
        #expect(changes.output.contains("Say more") && changes.output.contains("+more"))
        #expect(try run("changes", "slow", "--stat", node: node).output.contains("README.md  +1 -0"))
        #expect(try run("logs", "slow", "--lines", "1", node: node).output == "ready")
        #expect(try run("cancel", "slow", node: node).output == "slow is being cancelled")
        let followed = try run("logs", "-f", "slow", node: node)
        #expect(followed.code == 1 && followed.output.contains("[EXIT:143]"))
        #expect(try run("cancel", "slow", node: node).code == 1)
    }

    @Test(arguments: [("exit 3", Int32(1)), ("echo TASK_COMPLETE", 0), ("echo ready; sleep 600", 124)])
    func waitingEndsWithTheTasksOutcome(agent: String, code: Int32) throws {
        let node = try node(agent, worker: #", "max_runtime_minutes": 0.02, "restart": {"policy": "never"}"#)
        #expect(try run("dispatch", "o/r", "x", "--wait", node: node).code == code)
    }

    @Test func whoStopsFollowingLeavesTheTaskRunning() throws {
        let node = try node("echo ready; sleep 600")
        #expect(try node.dispatch("long").status == 202)
        #expect(try node.awaitLog("long", "ready"))
        let output = try Pipe()
        let errors = try Pipe()
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        defer { close(null) }
        let pid = try Command(
            path: TestEnvironment.executable, arguments: ["aidevops-worker", "logs", "-f", "long"],
            environment: environment(node)
        ).spawn(descriptors: [null, output.writing.number, errors.writing.number])
        func read(_ pipe: Int32, until text: String) -> Bool {
            var bytes: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 4096)
            while !String(decoding: bytes, as: UTF8.self).contains(text) {
                let count = Glibc.read(pipe, &chunk, chunk.count)
                if count <= 0 { return false }
                bytes += chunk[..<count]
            }
            return true
        }
        #expect(read(output.reading.number, until: "ready"))
        _ = cs_kill(pid, SIGINT)
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        #expect((status >> 8) & 0xff == 130)
        #expect(
            read(errors.reading.number, until: "the task long goes on; cancel it with: aidevops-worker cancel long"))
        #expect(try node.state("long") == "running")
    }

    @Test func hostsAreManagedAndWhatIsNotOursIsKept() throws {
        let node = try node("echo TASK_COMPLETE")
        try Files.makeFolders(home.path + "/aidevops")
        try home.write(
            "aidevops/remote-hosts.json",
            #"{"hosts": {"old": {"address": "me@old", "user": "me", "container": "c"}}, "theirs": [1]}"#)
        #expect(
            try run(
                "hosts", "add", "near", "http://127.0.0.1:\(node.port)", "--token-file", "-", input: node.token + "\n"
            ).code == 0)
        #expect(try run("hosts", "add", "dead", "http://127.0.0.1:1", "--token-file", "-", input: "t").code == 0)
        for words in [["-x", "http://a"], ["a b", "http://a"], ["fine", "ssh://a"], ["fine", "a"]] {
            #expect(try run("hosts", "add", words[0], words[1], "--token-file", "-").code == 2)
        }
        let file = try home.read("aidevops/remote-hosts.json")
        #expect(file.contains("\"container\" : \"c\"") && file.contains("theirs") && file.contains("near"))
        var info = stat()
        #expect(stat(home.path + "/aidevops/remote-hosts.json", &info) == 0 && info.st_mode & 0o777 == 0o600)
        let list = try run("hosts", "list").output
        #expect(list.contains("ssh (not spoken here)") && !list.contains(node.token))
        let check = try run("hosts", "check")
        #expect(check.code == 1 && check.output.contains("2 of 2") && check.output.contains("can't be reached"))
        #expect(try run("status", "--host", "near").output.contains("workers   0 of 2"))
        #expect(try run("status", "--host", "neer").errors.contains("did you mean near?"))
        #expect(try run("status", "--host", "old").errors.contains("reached over ssh"))
        #expect(try run("hosts", "remove", "near").code == 0)
        #expect(try run("hosts", "remove", "near").code == 1)
    }

    /// Local first; then where there's room; dead nodes are passed over, and nothing runs twice.
    @Test func aTaskGoesWhereThereIsRoom() throws {
        let local = try node("echo ready; sleep 600", worker: #", "max_concurrent": 1"#)
        let far = try node("echo ready; sleep 600", worker: #", "max_concurrent": 2"#)
        #expect(
            try run("hosts", "add", "far", "http://127.0.0.1:\(far.port)", "--token-file", "-", input: far.token).code
                == 0)
        #expect(try run("hosts", "add", "dead", "http://127.0.0.1:1", "--token-file", "-", input: "t").code == 0)
        var places: [String] = []
        for number in 0..<3 {
            let placed = try run("dispatch", "o/r", "x", "--task-id", "task-\(number)", node: local)
            #expect(placed.code == 0, "\(placed)")
            places.append(placed.output.split(separator: " ").last.map(String.init) ?? "")
        }
        #expect(places == ["local", "far", "far"])
        let full = try run("dispatch", "o/r", "x", "--task-id", "task-3", node: local)
        #expect(full.code == 1 && full.errors.contains("no node took the task") && full.errors.contains("dead: "))
        let both = try run("ps", "--all-hosts", node: local)
        #expect(both.output.split(separator: "\n").count == 4 && both.errors.contains("dead: "))
        #expect(try run("dispatch", "o/r", "x", "--task-id", "task-1", "--host", "far").errors.contains("already"))
    }

    @Test func wrongUseIsTold() throws {
        let cases: [(words: [String], code: Int32, says: String)] = [
            ([], 0, "Usage:"), (["--help"], 0, "dispatch"), (["--version"], 0, "aidevops-worker 0."),
            (["pz"], 2, "did you mean ps?"), (["ps", "--al"], 2, "did you mean --all?"), (["logs"], 2, "ID is missing"),
            (["logs", "--follw", "x"], 2, "did you mean --follow?"), (["logs", "a/b"], 2, "ID "),
            (["dispatch"], 2, "REPO is missing"), (["dispatch", "o/r"], 2, "PROMPT is missing"),
            (["dispatch", "or", "x"], 2, "REPO "), (["dispatch", "o/r", "do", "it"], 2, "quote the prompt"),
            (["dispatch", "o/r", "x", "--prompt-file", "-"], 2, "two prompts"),
            (["ps", "--host", "a", "--url", "http://b"], 2, "give one"),
            (["ps", "--url", "ftp://b"], 2, "http or https"),
            (["ps", "--url", "http://127.0.0.1:1"], 1, "can't be reached"),
            (["ps", "--state", "failed"], 2, "need --all"),
            (["config", "chek"], 2, "did you mean check?"), (["completions", "tcsh"], 2, "unknown action"),
            (["hosts", "add", "x", "http://a"], 2, "--token-file is missing"), (["token"], 2, "show or rotate"),
        ]
        for (words, code, says) in cases {
            let result = try Command(
                path: TestEnvironment.executable, arguments: ["aidevops-worker"] + words, environment: environment(nil),
                directory: home.path
            ).run()
            #expect(
                result.status == .exited(code) && (result.outputText + result.errorText).contains(says),
                "\(words): \(result.errorText)")
        }
        for command in [
            "serve", "demo", "dispatch", "ps", "logs", "cancel", "changes", "status", "hosts", "config", "token",
            "doctor", "completions",
        ] {
            #expect(try run(command, "--help").output.contains("Usage: aidevops-worker \(command)"))
        }
    }

    @Test func theConfigurationIsCheckedAndShownWithoutSecrets() throws {
        let node = try TestNode(agent: "true", settings: #""bogus": 1"#)
        let shown = try run("config", "show", node: node)
        #expect(
            shown.code == 0 && shown.output.contains("\"auth_token\" : \"***\"") && !shown.output.contains(node.token))
        #expect(try run("config", "check", node: node).output.contains("bogus means nothing"))
        #expect(try run("config", "set", "worker.max_concurrent", "7", node: node).code == 0)
        #expect(
            try run("config", "set", "worker.max_concurrent", "x", node: node).errors.contains("nothing was changed"))
        #expect(try run("config", "set", "max", "7", node: node).code == 2)
        let file = try node.folder.read("data/config/worker.json")
        #expect(file.contains("\"max_concurrent\" : 7") && file.contains("bogus") && file.contains(node.token))
        try node.writeConfiguration(#"{"worker": {"max_concurrent": 0}, "sandbox": {"mode": "strict"}}"#)
        let invalid = try run("config", "check", node: node)
        #expect(invalid.code == 1 && invalid.output.contains("worker.max_concurrent must be"))
        #expect(invalid.output.contains("sandbox.mode must be one of enforce, best-effort, off"))
    }

    @Test func theDoctorSaysWhatToDo() throws {
        let node = try TestNode(agent: "true")
        let text = try run("doctor", "--offline", node: node)
        #expect(
            text.code == 1 && text.output.contains("✗ GH_TOKEN: it isn't set")
                && text.output.contains("✓ git: git version"))
        #expect(text.output.contains("sandbox: best-effort"))
        let json = try run("doctor", "--offline", "--json", node: node)
        #expect(json.output.hasPrefix("[") && json.output.contains("\"grade\" : \"broken\""))
        try node.writeConfiguration("{]")
        #expect(try run("doctor", "--offline", node: node).output.contains("✗ worker.json: "))
    }

    @Test func completionsAreValidScripts() throws {
        for shell in ["bash", "zsh", "fish"] {
            let script = try run("completions", shell).output
            #expect(script.contains("dispatch") && script.contains("prompt-file"))
            guard let checker = Command(program: shell, ["-n", "/dev/stdin"], environment: environment(nil)) else {
                print("skipped: \(shell) isn't on this machine to check its completions")
                continue
            }
            #expect(try checker.run(input: Array(script.utf8)).succeeded)
        }
    }

    /// What a log does to a terminal: nothing; a pipe gets it as it is.
    @Test func controlCharactersOfALogDoNotReachATerminal() throws {
        let node = try node("printf 'red \\033[31m title \\033]0;x\\007 end\\n'; echo TASK_COMPLETE")
        #expect(try node.dispatch("rude").status == 202)
        _ = try node.followToEnd("rude")
        #expect(try run("logs", "rude", node: node).output.contains("red \u{1b}[31m"))
        let command = Command(
            program: "script",
            [
                "-qec", "'\(TestEnvironment.executable)' logs rude; '\(TestEnvironment.executable)' ps --all",
                "/dev/null",
            ],
            environment: environment(node).merging(["TERM": "xterm", "SHELL": "/bin/sh"]) { $1 })
        guard let command else { return print("skipped: script isn't on this machine to make a terminal") }
        let terminal = try command.run().outputText
        #expect(terminal.contains("red \u{241b}[31m title \u{241b}]0;x\u{2407} end"), "\(terminal)")
        #expect(terminal.contains("\u{1b}[1mTASK"))
    }
}

/// Any JSON value.
private struct TestAny: Decodable {
    init(from decoder: any Decoder) throws {}
}
