import CSystem
import Glibc
import Supervision

extension SubCommand {
    static let doctor = SubCommand(
        name: "doctor",
        summary: "Look whether this machine can do the work: each thing with a tick, or with what to do.",
        options: [
            .init("--data-dir", "DIR", "The data folder (default: $AIDEVOPS_DATA_DIR, or ./data)."),
            .init("--offline", nil, "Don't ask GitHub anything."),
            .init("--json", nil, "Print JSON."),
        ],
        run: { arguments in
            try arguments.requireOperands()
            let paths = NodePaths(data: Environment.dataFolder(arguments["--data-dir"]))
            var doctor = Doctor(paths: paths, isOffline: arguments.has("--offline"))
            let findings = doctor.examine()
            if arguments.has("--json") {
                Terminal.out(JSONValue.array(findings.map(\.json)).text)
            } else {
                for finding in findings { Terminal.out(finding.line) }
            }
            return findings.contains { $0.grade == .broken } ? 1 : 0
        })
}

/// Looks at what a node needs.
private struct Doctor {
    enum Grade: String {
        case good
        /// Works, but not as well as it could.
        case poor
        /// Real work will fail.
        case broken
    }

    struct Finding {
        var subject: String
        var grade: Grade
        /// What was found, or what to do.
        var sentence: String

        var json: JSONValue {
            .object(["subject": .string(subject), "grade": .string(grade.rawValue), "sentence": .string(sentence)])
        }

        var line: String {
            let mark =
                switch grade {
                case .good: Terminal.styled("✓", .green)
                case .poor: Terminal.styled("!", .yellow)
                case .broken: Terminal.styled("✗", .red)
                }
            return "\(mark) \(subject): \(Terminal.foreign(sentence))\n"
        }
    }

    let paths: NodePaths
    let isOffline: Bool
    private var findings: [Finding] = []
    private var configuration: Configuration?

    private static let gitHubTimeout = 10
    /// Least free space for a clone and its build, in bytes.
    private static let leastDiskBytes = 2 << 30

    init(paths: NodePaths, isOffline: Bool) {
        self.paths = paths
        self.isOffline = isOffline
    }

    mutating func examine() -> [Finding] {
        examineConfiguration()
        examineDataFolder()
        examinePrograms()
        examineAgent()
        examineKeys()
        if !isOffline { examineGitHub() }
        examineMemory()
        examineSandbox()
        examineNode()
        return findings
    }

    private mutating func add(_ subject: String, _ grade: Grade, _ sentence: String) {
        findings.append(Finding(subject: subject, grade: grade, sentence: sentence))
    }

    private mutating func examineConfiguration() {
        let file = ConfigurationFile(path: paths.config + "/worker.json")
        guard Files.exists(file.path) else {
            configuration = try? Configuration(.object([:]))
            return add("worker.json", .poor, "\(file.path) isn't there yet: the first `aidevops-worker serve` makes it")
        }
        do {
            let loaded = try file.load()
            configuration = loaded
            let unknown = loaded.unknownKeys
            if loaded.authToken.isEmpty {
                add(
                    "worker.json", .broken,
                    "dispatch.auth_token is empty, so nobody is let in: aidevops-worker token rotate")
            } else if !unknown.isEmpty {
                add("worker.json", .poor, "these keys mean nothing: \(unknown.joined(separator: ", "))")
            } else {
                add("worker.json", .good, "valid")
            }
        } catch { add("worker.json", .broken, "\(error)") }
    }

    private mutating func examineDataFolder() {
        let folder = Files.exists(paths.data) ? paths.data : Files.parent(of: paths.data) ?? "/"
        guard unsafe access(folder, W_OK | X_OK) == 0 else {
            return add(
                "data folder", .broken,
                "\(folder) can't be written by this user: chown it, or choose another with --data-dir")
        }
        var info = stat()
        if Files.exists(paths.data), unsafe stat(paths.data, &info) == 0, info.st_mode & 0o077 != 0 {
            add("data folder", .poor, "\(paths.data) is open to other users: chmod 700 \(paths.data)")
        } else {
            add("data folder", .good, paths.data)
        }
        guard let space = try? Files.diskSpace(folder) else { return }
        let free = "\(space.free >> 20) MB free"
        add(
            "disk", space.free >= Doctor.leastDiskBytes ? .good : .poor,
            space.free >= Doctor.leastDiskBytes ? free : "\(free): make room, clones and builds need more")
    }

    // MARK: Programs

    /// The first line that a program answers; nil where it isn't there or doesn't work.
    private func answer(_ program: String, _ arguments: [String]) -> String? {
        guard let command = Command(program: program, arguments, environment: Environment.variables),
            let result = try? command.run(), result.succeeded
        else { return nil }
        return result.outputText.split(separator: "\n").first.map(String.init)
    }

    private mutating func examinePrograms() {
        if let version = answer("git", ["--version"]) {
            add("git", .good, version)
        } else {
            add("git", .broken, "it isn't on PATH; install it, on Debian and Ubuntu with: apt install git")
        }
        if let version = answer("gh", ["--version"]) {
            add("gh", .good, version)
        } else {
            add(
                "gh", .poor,
                "it isn't on PATH: agents can't open pull requests with it, and the pulse can't run (cli.github.com)")
        }
        if answer("curl", ["--version"]) == nil {
            add("curl", .broken, "it isn't on PATH; install it, on Debian and Ubuntu with: apt install curl")
        }
    }

    private mutating func examineAgent() {
        guard let agent = configuration?.node.agent, let program = agent.launches.first?.arguments.first else { return }
        let path = Environment.variables["PATH"] ?? Files.defaultSearchPath
        guard let found = Files.findProgram(program, path: path) else {
            return add("agent", .broken, "\(program) isn't on PATH. \(agent.installHint)")
        }
        let probe = agent.versionProbe.isEmpty ? [program, "--version"] : agent.versionProbe
        guard agent.name != "custom" else { return add("agent", .good, found) }
        guard let version = answer(probe[0], Array(probe.dropFirst())) else {
            return add("agent", .broken, "\(found) doesn't answer \(probe.joined(separator: " "))")
        }
        add("agent", .good, "\(program) \(version)")
    }

    // MARK: Keys and GitHub

    private var environment: [String: String] {
        Environment.variables.merging(configuration?.node.agentEnvironment ?? [:]) { $1 }
    }

    private mutating func examineKeys() {
        let uses = [
            ("GH_TOKEN", "clones of private repositories, pushes and pull requests fail without it"),
            ("ANTHROPIC_API_KEY", "agents can't reach the default model without it"),
        ]
        for (name, use) in uses {
            let isSet = !(environment[name] ?? "").isEmpty
            add(name, isSet ? .good : .broken, isSet ? "set" : "it isn't set: \(use)")
        }
    }

    private mutating func examineGitHub() {
        let base = configuration?.node.gitBaseURL ?? NodeSettings().gitBaseURL
        guard base.hasPrefix("https://github.com") else {
            return add("remote", .good, "\(base), which isn't GitHub and wasn't asked")
        }
        var client = NodeClient(url: "https://api.github.com", token: environment["GH_TOKEN"] ?? "")
        client.timeout = Doctor.gitHubTimeout
        do {
            let answer = try client.get(client.token.isEmpty ? "/rate_limit" : "/user")
            switch answer.status {
            case 200:
                let login = (try? JSONValue(bytes: answer.body))?["login"]?.string
                add("GitHub", .good, login.map { "reachable; the token is \($0)'s" } ?? "reachable")
            case 401: add("GitHub", .broken, "it doesn't take GH_TOKEN: make a new one")
            default: add("GitHub", .poor, "it answered with status \(answer.status)")
            }
        } catch {
            let sentence = (error as? NodeClient.Unreachable)?.message ?? "\(error)"
            add("GitHub", .broken, sentence)
        }
    }

    // MARK: The machine

    private mutating func examineMemory() {
        guard let node = configuration?.node else { return }
        let memory = MemoryReading.now()
        let needed = node.maxConcurrent * node.memoryPerWorkerMB + node.memoryReserveMB
        let sentence =
            "\(memory.availableMB) of \(memory.totalMB) MB free; worker.max_concurrent \(node.maxConcurrent) needs \(needed) MB"
        add(
            "memory", memory.availableMB >= needed ? .good : .poor,
            sentence + (memory.availableMB >= needed ? "" : ": lower it, or give the node more"))
        if !ProcessTree.isSupported {
            add(
                "kernel", .broken,
                "it doesn't list child processes (CONFIG_PROC_CHILDREN): no worker could be contained")
        }
    }

    /// What a node that runs here tells of itself.
    private mutating func examineNode() {
        let url = Target.localURL
        guard let status = try? NodeClient(url: url, token: "").get("/status").json() else {
            return add("node", .poor, "none answers at \(url); start it with: aidevops-worker serve")
        }
        let problems = (status["degraded"]?.array ?? []).compactMap(\.string)
        add(
            "node", problems.isEmpty ? .good : .broken,
            problems.isEmpty ? "it answers at \(url)" : problems.joined(separator: "; "))
        guard let advised = status["capacity"]?["recommended_max_concurrent"]?.integer,
            let peak = status["capacity"]?["peak_memory_mb"]?.integer, let node = configuration?.node
        else { return }
        let isWithin = node.maxConcurrent <= advised
        add(
            "capacity", isWithin ? .good : .poor,
            "its tasks took up to \(peak) MB each: room for \(advised) at once, and worker.max_concurrent is \(node.maxConcurrent)"
                + (isWithin ? "" : "; lower it with: aidevops-worker config set worker.max_concurrent \(advised)"))
    }

    private mutating func examineSandbox() {
        guard let settings = configuration?.node.sandbox else { return }
        let report = SandboxReport(
            settings, landlockVersion: SandboxReport.kernelVersion,
            controlGroups: .inactive("told by /status of a running node"))
        if let refusal = report.refusal { add("sandbox", .broken, refusal) }
        add(
            "sandbox", report.active.isEmpty ? .poor : .good,
            "\(report.mode.rawValue): "
                + (report.active.isEmpty ? "nothing is in force" : report.active.joined(separator: ", ")))
        for sentence in report.missing where !sentence.hasPrefix("control_groups") { add("sandbox", .poor, sentence) }
    }
}
