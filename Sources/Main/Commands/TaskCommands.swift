import FoundationEssentials
import Supervision

// What is asked of a node about its tasks, and told in tables.

extension SubCommand {
    static let ps = SubCommand(
        name: "ps", summary: "List the active tasks, or all.",
        options: [
            .init("--all", nil, "Those that have ended, too."),
            .init("--state", "STATE", "Only tasks in this state (with --all)."),
            .init("--repo", "REPO", "Only tasks of this repository (with --all)."),
            .init("--all-hosts", nil, "Of this machine's node and of all of remote-hosts.json."),
        ] + Target.options,
        run: { arguments in
            try arguments.requireOperands()
            let path = try taskPath(arguments)
            guard arguments.has("--all-hosts") else {
                let tasks = taskList(try Target(arguments).get(path))
                Terminal.out(arguments.has("--json") ? JSONValue.array(tasks).text : taskTable(tasks))
                return 0
            }
            return try listAllHosts(path, arguments)
        })

    private static func taskPath(_ arguments: Arguments) throws -> String {
        guard arguments.has("--all") else {
            guard !arguments.has("--state"), !arguments.has("--repo") else {
                throw UsageError(message: "--state and --repo need --all")
            }
            return "/workers"
        }
        var path = "/tasks?limit=500"
        for name in ["state", "repo"] {
            guard let value = arguments["--" + name] else { continue }
            path += "&\(name)=" + value.percentEncoded
        }
        return path
    }

    private static func taskList(_ json: JSONValue) -> [JSONValue] { (json["workers"] ?? json["tasks"])?.array ?? [] }

    private static func listAllHosts(_ path: String, _ arguments: Arguments) throws -> Int32 {
        let remote = try RemoteHosts().all.filter(\.isOurs).map { Target(name: $0.name, client: $0.client) }
        var tasks: [JSONValue] = []
        var code: Int32 = 0
        for target in [try Target.local(arguments)] + remote {
            do {
                for var task in taskList(try target.get(path)) {
                    task["host"] = .string(target.name)
                    tasks.append(task)
                }
            } catch let error as CommandFailure {
                Terminal.error("\(target.name): \(error.message)")
                code = 1
            }
        }
        Terminal.out(arguments.has("--json") ? JSONValue.array(tasks).text : taskTable(tasks, showsHost: true))
        return code
    }

    private static func taskTable(_ tasks: [JSONValue], showsHost: Bool = false) -> String {
        let rows = tasks.map { task in
            let minutes = task["elapsed_minutes"]?.integer ?? 0
            return (showsHost ? [task["host"]?.string ?? ""] : []) + [
                task["task_id"]?.string ?? "", task["repo"]?.string ?? "", task["state"]?.string ?? "",
                minutes >= 60 ? "\(minutes / 60) h \(minutes % 60) min" : "\(minutes) min",
                task["attempt"]?.integer.map(String.init) ?? "", task["memory_mb"]?.integer.map { "\($0) MB" } ?? "",
                task["pull_request"]?.string ?? task["reason"]?.string ?? "",
            ]
        }
        let heads = ["TASK", "REPO", "STATE", "TIME", "TRY", "MEMORY", "WHAT"]
        return Terminal.table((showsHost ? ["HOST"] : []) + heads, rows)
    }

    static let status = SubCommand(
        name: "status", summary: "Show how a node is.", options: Target.options,
        run: { arguments in
            try arguments.requireOperands()
            let status = try Target(arguments).get("/status")
            Terminal.out(arguments.has("--json") ? status.text : statusText(status))
            return status["status"]?.string == "ok" ? 0 : 1
        })

    private static func statusText(_ status: JSONValue) -> String {
        func number(_ section: String, _ key: String) -> String { "\(status[section]?[key]?.integer ?? 0)" }
        let state = status["status"]?.string ?? "unknown"
        var text = Terminal.styled(state, state == "ok" ? .green : .red)
        text +=
            ", version \(status["version"]?.string ?? "?"), up \((status["uptime_seconds"]?.integer ?? 0) / 60) min\n"
        text +=
            "workers   \(number("workers", "active")) of \(number("workers", "max")), \(number("queue", "length")) waiting\n"
        text += "memory    \(number("memory", "available_mb")) of \(number("memory", "total_mb")) MB free\n"
        if let disk = status["disk"] {
            text += "disk      \(disk["free_mb"]?.integer ?? 0) of \(disk["total_mb"]?.integer ?? 0) MB free\n"
        }
        if let advice = status["capacity"] {
            text +=
                "capacity  \(advice["recommended_max_concurrent"]?.integer ?? 0) at once, by \(advice["tasks"]?.integer ?? 0) tasks "
            text += "of at most \(advice["peak_memory_mb"]?.integer ?? 0) MB\n"
        }
        let active = (status["sandbox"]?["active"]?.array ?? []).compactMap(\.string)
        text += "sandbox   \(status["sandbox"]?["mode"]?.string ?? "?"): \(active.joined(separator: ", "))\n"
        let missing = status["sandbox"]?["missing"]?.array ?? []
        let problems = (status["degraded"]?.array ?? []) + (status["configuration_problems"]?.array ?? [])
        for sentence in missing.compactMap(\.string) {
            text += Terminal.styled("missing", .yellow) + "   \(sentence)\n"
        }
        for sentence in problems.compactMap(\.string) { text += Terminal.styled("problem", .red) + "   \(sentence)\n" }
        return text
    }

    static let logs = SubCommand(
        name: "logs", operands: "ID", summary: "Print a task's log, or follow it.",
        options: [
            .init("--follow", short: "-f", nil, "Follow it until the task has ended; Ctrl-C leaves the task running."),
            .init("--lines", "N", "How many of the last lines (default: 500)."),
        ] + Target.options,
        run: { arguments in
            try arguments.requireOperands("ID")
            let id = try arguments.taskID()
            let lines = try arguments.integer("--lines", 0...100_000)
            let target = try Target(arguments)
            func show(_ line: String) {
                Terminal.out(
                    arguments.has("--json")
                        ? JSONValue.object(["line": .string(line)]).line : Terminal.foreign(line) + "\n")
            }
            guard arguments.has("--follow") else {
                let answer = try target.answer("GET", "/workers/\(id)/logs" + (lines.map { "?lines=\($0)" } ?? ""))
                guard answer.status == 200 else { throw CommandFailure(message: answer.message) }
                let text = String(decoding: answer.body, as: UTF8.self)
                for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
                    show(String(line))
                }
                return 0
            }
            let total = try target.get("/workers/\(id)")["log_lines"]?.integer ?? 0
            let after = lines.map { UInt64(max(0, total - $0)) }
            switch try LogFollower(client: target.client, id: id, after: after).run(onLine: show) {
            case .ended(let state, _, _): return state == TaskState.succeeded.rawValue ? 0 : 1
            case .interrupted: return Interruption.tell(id, target)
            }
        })

    static let cancel = SubCommand(
        name: "cancel", operands: "ID", summary: "Cancel a task: nothing of it is left.", options: Target.options,
        run: { arguments in
            try arguments.requireOperands("ID")
            let id = try arguments.taskID()
            let answer = try Target(arguments).answer("DELETE", "/workers/\(id)").json()
            Terminal.out(arguments.has("--json") ? answer.text : "\(id) is being cancelled\n")
            return 0
        })

    static let changes = SubCommand(
        name: "changes", operands: "ID", summary: "Show what a task has changed so far.",
        options: [.init("--stat", nil, "The files only, without the diff.")] + Target.options,
        run: { arguments in
            try arguments.requireOperands("ID")
            let changes = try Target(arguments).get("/workers/\(try arguments.taskID())/changes")
            Terminal.out(
                arguments.has("--json") ? changes.text : changesText(changes, showsDiff: !arguments.has("--stat")))
            return 0
        })

    private static func changesText(_ changes: JSONValue, showsDiff: Bool) -> String {
        var text = "branch \(changes["branch"]?.string ?? ""), from \((changes["base"]?.string ?? "").prefix(12))\n"
        for commit in changes["commits"]?.array ?? [] {
            let id = Terminal.styled(String((commit["id"]?.string ?? "").prefix(12)), .yellow)
            text += "\(id) \(Terminal.foreign(commit["subject"]?.string ?? ""))\n"
        }
        for file in changes["files"]?.array ?? [] {
            let counts = file["added"]?.integer.map { "+\($0) -\(file["deleted"]?.integer ?? 0)" } ?? "binary"
            text += "  \(Terminal.foreign(file["path"]?.string ?? ""))  \(counts)\n"
        }
        for path in (changes["untracked"]?.array ?? []).compactMap(\.string) {
            text += "  \(Terminal.foreign(path))  not tracked\n"
        }
        guard showsDiff else { return text }
        for line in (changes["diff"]?.string ?? "").split(separator: "\n", omittingEmptySubsequences: false) {
            let words = Terminal.foreign(String(line))
            switch line.first {
            case "+": text += Terminal.styled(words, .green) + "\n"
            case "-": text += Terminal.styled(words, .red) + "\n"
            default: text += words + "\n"
            }
        }
        if changes["truncated"]?.bool == true { text += "(cut: there is more)\n" }
        return text
    }
}

extension Arguments {
    /// The first operand as a task's id.
    fileprivate func taskID() throws -> String {
        if let problem = Names.problem(taskID: operands[0]) { throw UsageError(message: "ID \(problem)") }
        return operands[0]
    }
}
