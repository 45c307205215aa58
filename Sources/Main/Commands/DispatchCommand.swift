import FoundationEssentials
import Glibc
import Supervision

extension SubCommand {
    static let dispatch = SubCommand(
        name: "dispatch", operands: "REPO [PROMPT]",
        summary: "Give a task to a node: this machine's first, else the remote one with the most free slots.",
        options: [
            .init("--prompt-file", "FILE", "Read the prompt from a file, or from standard input with -."),
            .init("--task-id", "ID", "The task's id (default: a random one)."),
            .init("--model", "MODEL", "The model (default: the node's)."),
            .init("--branch", "BRANCH", "The branch to work on (default: main)."),
            .init("--continue", "ID", "Go on in the worktree and the session of an earlier task."),
            .init("--callback-url", "URL", "Where the node posts the task's record when it has ended."),
            .init("--wait", nil, "Wait for the end; the exit code is the task's (see the docs)."),
        ] + Target.options,
        run: { arguments in
            let task = try TaskOrder(arguments)
            let placed = try task.place(arguments)
            if arguments.has("--json"), !arguments.has("--wait") {
                var answer = placed.answer
                answer["host"] = .string(placed.target.name)
                Terminal.out(answer.text)
            } else if !arguments.has("--json") {
                let state = placed.answer["status"]?.string ?? "taken"
                Terminal.out("\(task.id) \(state) on \(placed.target.name)\n")
            }
            return arguments.has("--wait") ? try task.wait(on: placed.target, asJSON: arguments.has("--json")) : 0
        })
}

/// A task that the command line gives away.
private struct TaskOrder {
    let id: String
    let body: JSONValue

    init(_ arguments: Arguments) throws {
        guard let repo = arguments.operands.first else { throw UsageError(message: "REPO is missing") }
        guard arguments.operands.count <= 2 else {
            throw UsageError(message: "\(arguments.operands[2]) is one argument too many: quote the prompt")
        }
        if let problem = Names.problem(repo: repo) { throw UsageError(message: "REPO \(problem)") }
        id = arguments["--task-id"] ?? "task-" + Names.randomHex(digits: 12)
        if let problem = Names.problem(taskID: id) { throw UsageError(message: "--task-id \(problem)") }
        var body: JSONValue = .object([
            "repo": .string(repo), "task_id": .string(id), "prompt": .string(try TaskOrder.prompt(arguments)),
        ])
        let fields = [
            ("model", "--model"), ("branch", "--branch"), ("continue_task", "--continue"),
            ("callback_url", "--callback-url"),
        ]
        for (field, option) in fields { if let value = arguments[option] { body[field] = .string(value) } }
        self.body = body
    }

    private static func prompt(_ arguments: Arguments) throws -> String {
        let operand = arguments.operands.count > 1 ? arguments.operands[1] : nil
        switch (operand, arguments["--prompt-file"]) {
        case (let prompt?, nil): return prompt
        case (nil, let file?):
            let path = file == "-" ? "/dev/stdin" : file
            do throws(SystemError) {
                return String(decoding: try Files.read(path, limit: 1 << 20), as: UTF8.self)
            } catch { throw CommandFailure(message: "the prompt can't be read: \(error)") }
        case (nil, nil): throw UsageError(message: "PROMPT is missing: give it, or --prompt-file FILE")
        case (_?, _?): throw UsageError(message: "PROMPT and --prompt-file are two prompts: give one")
        }
    }

    func place(_ arguments: Arguments) throws -> Placement.Placed {
        if arguments.has("--host") || arguments.has("--url") {
            var placement = Placement(candidates: [])
            let target = try Target(arguments)
            if let answer = try placement.offer(body, id: id, to: target) {
                return .init(target: target, answer: answer)
            }
            throw CommandFailure(message: placement.notices.last?.sentence ?? "\(target.name) didn't take the task")
        }
        let remote = try RemoteHosts().all.filter(\.isOurs).map { Target(name: $0.name, client: $0.client) }
        var placement = Placement(local: try Target.local(arguments), remote: remote)
        return try placement.place(body, id: id)
    }

    func wait(on target: Target, asJSON: Bool) throws -> Int32 {
        let began = Date()
        let end = try LogFollower(client: target.client, id: id, after: 0).run { line in
            let seconds = Int(Date().timeIntervalSince(began))
            let words = Terminal.harmless(String(line.prefix(60))).replacing("\n", with: " ")
            Terminal.progress("\r\u{1b}[K\(seconds) s  \(words)")
        }
        Terminal.progress("\r\u{1b}[K")
        guard case .ended(let state, _, let reason) = end else { return Interruption.tell(id, target) }
        Terminal.out(
            asJSON
                ? try target.get("/workers/\(id)").text
                : "\(id) \(state): \(Terminal.foreign(reason))\n")
        return TaskOrder.exitCode(of: state)
    }

    /// As shells have them: 124 as timeout(1), 130 as for Ctrl-C.
    private static func exitCode(of state: String) -> Int32 {
        switch TaskState(rawValue: state) {
        case .succeeded: 0
        case .timedOut: 124
        case .cancelled: 130
        default: 1
        }
    }
}

/// What is said when somebody stops watching.
enum Interruption {
    static func tell(_ id: String, _ target: Target) -> Int32 {
        let host =
            target.name == "local"
            ? "" : target.name.contains("://") ? " --url \(target.name)" : " --host \(target.name)"
        Terminal.error("the task \(id) goes on; cancel it with: aidevops-worker cancel \(id)\(host)")
        return 130
    }
}
