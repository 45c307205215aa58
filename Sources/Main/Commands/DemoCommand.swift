import CSystem
import FoundationEssentials
import Glibc
import Supervision

extension SubCommand {
    static let demo = SubCommand(
        name: "demo",
        summary: "Show the whole job with no keys and no network: dispatch, clone, agent, commit, push.",
        options: [.init("--keep", nil, "Leave the demo's folder in place.")],
        run: { arguments in
            try arguments.requireOperands()
            let demo = try Demo()
            defer { demo.cleanUp(keeping: arguments.has("--keep")) }
            try demo.run()
            return 0
        })
}

/// A node of its own in a folder of its own, with a bare repository in the place of GitHub and a small script in the place
/// of the agent. All else is as in a real task.
private final class Demo {
    private let folder: String
    private var node: Int32 = -1
    private var client: NodeClient?

    private static let repo = "demo/hello"
    private static let branch = "demo-change"
    private static let startLimit = Duration.seconds(30)

    /// What stands in for the agent: it reads its prompt, edits a file, commits and pushes.
    private static let agent = """
        set -eu
        prompt=$(cat)
        echo "agent: I was asked: $prompt"
        echo "agent: I am in $PWD on branch $(git branch --show-current)"
        printf '%s\\n' "Changed by task $AIDEVOPS_TASK_ID." >> README.md
        git commit --quiet --all --message "Change README.md as asked"
        echo "agent: committed $(git rev-parse --short HEAD)"
        git push --quiet --set-upstream origin HEAD
        echo "agent: pushed"
        echo TASK_COMPLETE
        """

    init() throws {
        var template = Array("/tmp/aidevops-worker-demo.XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else {
            throw CommandFailure(message: "no folder can be made in /tmp: \(SystemError.message(errno))")
        }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func run() throws {
        step("Making a bare repository in the place of GitHub: \(folder)/remote/\(Demo.repo).git")
        try makeRepository()
        step("Starting a node on a free port")
        let client = try startNode()
        self.client = client
        print("  \(client.url)")
        step("Dispatching a task: POST /dispatch")
        let id = try dispatch(to: client)
        step("Following its log: GET /workers/\(id)/logs")
        let state = try follow(id, client)
        guard state == "succeeded" else { throw CommandFailure(message: "the demo's task ended as \(state)") }
        step("The pushed commit, as the repository has it")
        let repository = "\(folder)/remote/\(Demo.repo).git"
        print(indent(try git(["--git-dir", repository, "log", "--stat", "-1", "--format=%h %an: %s", Demo.branch])))
        step("Done: the task went from HTTP to a pushed branch.")
    }

    private func step(_ text: String) { Terminal.out("\n==> \(text)\n") }
    private func print(_ text: String) { Terminal.out(text + "\n") }
    private func indent(_ text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { "  \($0)" }.joined(separator: "\n")
    }

    private func git(_ arguments: [String]) throws -> String {
        var environment = Environment.variables
        environment["GIT_CONFIG_GLOBAL"] = "/dev/null"
        for person in ["AUTHOR", "COMMITTER"] {
            environment["GIT_\(person)_NAME"] = "Demo"
            environment["GIT_\(person)_EMAIL"] = "demo@example.com"
        }
        guard let command = Command(program: "git", arguments, environment: environment, directory: folder) else {
            throw CommandFailure(message: "git isn't on PATH; install it, on Debian and Ubuntu with: apt install git")
        }
        let result = try command.run()
        guard result.succeeded else { throw CommandFailure(message: "git \(arguments[0]) failed: \(result.errorText)") }
        return result.outputText
    }

    private func makeRepository() throws {
        let repository = "\(folder)/remote/\(Demo.repo).git"
        let work = "\(folder)/first"
        _ = try git(["init", "--quiet", "--bare", "--initial-branch", "main", repository])
        _ = try git(["init", "--quiet", "--initial-branch", "main", work])
        try Files.replace(work + "/README.md", with: Array("# Hello\n".utf8), mode: 0o644)
        _ = try git(["-C", work, "add", "."])
        _ = try git(["-C", work, "commit", "--quiet", "--message", "Begin"])
        _ = try git(["-C", work, "push", "--quiet", repository, "main"])
    }

    private func startNode() throws -> NodeClient {
        let data = "\(folder)/data"
        try Files.makeFolders(data + "/config")
        let token = ConfigurationFile.randomToken()
        let settings: JSONValue = .object([
            "dispatch": .object(["auth_token": .string(token)]),
            "git": .object(["base_url": .string("file://\(folder)/remote")]),
            "agent": .object([
                "preset": .string("custom"),
                "command": .array([.string("/bin/sh"), .string("-c"), .string(Demo.agent)]),
            ]),
        ])
        try Files.replace(data + "/config/worker.json", with: Array(try JSONEncoder().encode(settings)))
        let output = try Pipe()
        let null = Descriptor(
            owning: try checkErrno("open /dev/null") { unsafe open("/dev/null", O_RDONLY | O_CLOEXEC) })
        let command = Command(
            path: "/proc/self/exe",
            arguments: ["aidevops-worker", "serve", "--port", "0", "--data-dir", data, "--log-format", "json"],
            environment: Environment.variables, newSession: false)
        node = try command.spawn(descriptors: [null.number, output.writing.number, STDERR_FILENO])
        return NodeClient(url: try awaitURL(output.closeWriting()), token: token)
    }

    /// The address in the line with which the node says that it listens.
    private func awaitURL(_ output: borrowing Descriptor) throws -> String {
        let deadline = cs_monotonic_ns() + Demo.startLimit.nanoseconds
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while cs_monotonic_ns() < deadline {
            var ready: Int32 = 0
            var number = output.number
            guard unsafe cs_poll_readable(&number, &ready, 1, 1000) > 0 else { continue }
            let result = unsafe chunk.withUnsafeMutableBytes { unsafe output.read(into: $0) }
            guard case .bytes(let count) = result else { break }
            text += chunk[..<count]
            for line in text.split(separator: UInt8(ascii: "\n")) {
                if let url = (try? JSONValue(bytes: Array(line)))?["url"]?.string { return url }
            }
        }
        throw CommandFailure(message: "the demo's node didn't start: \(String(decoding: text, as: UTF8.self).trimmed)")
    }

    private func dispatch(to client: NodeClient) throws -> String {
        let body: JSONValue = .object([
            "repo": .string(Demo.repo), "prompt": .string("Say in README.md who changed it."),
            "branch": .string(Demo.branch),
        ])
        let answer = try client.request("POST", "/dispatch", json: Array(try JSONEncoder().encode(body)))
        print("  \(answer.status) \(String(decoding: answer.body, as: UTF8.self))")
        guard let id = try answer.json(202)["task_id"]?.string else { throw CommandFailure(message: answer.message) }
        return id
    }

    /// - Returns: the state in which the task ended.
    private func follow(_ id: String, _ client: NodeClient) throws -> String {
        var reader = EventStreamReader()
        var end = ""
        try client.follow("/workers/\(id)/logs", lastEventID: 0) { bytes in
            for event in reader.read(bytes) {
                if event.name == "end" { end = event.data } else { self.print("  | \(event.data)") }
            }
        }
        guard let state = (try? JSONValue(bytes: Array(end.utf8)))?["state"]?.string else {
            throw CommandFailure(message: "the log ended without an end event")
        }
        return state
    }

    func cleanUp(keeping: Bool) {
        if node > 0 {
            _ = cs_kill(node, SIGTERM)
            var status: Int32 = 0
            while unsafe waitpid(node, &status, 0) < 0 && errno == EINTR {}
        }
        if keeping { print("  (kept: \(folder))") } else { try? Files.remove(folder) }
    }
}
