import CSystem
import Glibc
import Supervision

/// A node as users run it: the built program in a process of its own, with bare repositories in the place of GitHub.
package final class TestNode {
    package let folder: TemporaryFolder
    package let token = "0123456789abcdef0123456789abcdef"
    package private(set) var port: UInt16 = 0
    package private(set) var pid: Int32 = -1
    private var output: Int32 = -1
    private var lines: [String] = []
    private var pending: [UInt8] = []
    /// Further environment of the node.
    package var environment: [String: String] = [:]

    /// - Parameters:
    ///   - agent: what the agent's shell runs.
    ///   - settings: further members of worker.json, as JSON.
    package init(agent: String, settings: String = "", folder: TemporaryFolder? = nil) throws {
        self.folder = try folder ?? TemporaryFolder()
        try Files.makeFolders(self.folder.path + "/data/config")
        try writeConfiguration(agent: agent, settings: settings)
    }

    deinit { kill() }

    package func writeConfiguration(agent: String, settings: String = "") throws {
        try self.folder.write("agent.sh", agent)
        try writeConfiguration(
            """
            {"dispatch": {"auth_token": "\(token)"}, "git": {"base_url": "file://\(folder.path)/remote"},
             "agent": {"preset": "custom", "command": ["/bin/sh", "\(folder.path)/agent.sh"]}\(settings.isEmpty ? "" : ", " + settings)}
            """)
    }

    package func writeConfiguration(_ json: String) throws { try folder.write("data/config/worker.json", json) }

    package var data: String { folder.path + "/data" }

    /// Makes a bare repository with one commit on `branch`.
    package func makeRepository(_ repo: String, branch: String = "main") throws {
        let bare = repository(repo)
        try Files.makeFolders(Files.parent(of: bare) ?? "/")
        try TestEnvironment.run("git", ["init", "--quiet", "--bare", "--initial-branch", branch, bare])
        let work = folder.path + "/seed-" + repo.replacing("/", with: "-")
        try TestEnvironment.run("git", ["init", "--quiet", "--initial-branch", branch, work])
        try Files.replace(work + "/README.md", with: Array("# Seed\n".utf8))
        try TestEnvironment.run("git", ["add", "."], in: work)
        try TestEnvironment.run("git", ["commit", "--quiet", "-m", "Begin"], in: work)
        try TestEnvironment.run("git", ["push", "--quiet", bare, branch], in: work)
    }

    package func repository(_ repo: String) -> String { folder.path + "/remote/" + repo + ".git" }

    // MARK: The process

    /// The most files that the node may have open; nil: what this process may.
    package var descriptorLimit: Int?

    package func start(arguments: [String] = []) throws {
        let pipe = try Pipe()
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        defer { close(null) }
        let serve = ["serve", "--port", "0", "--data-dir", data] + arguments
        let limited = descriptorLimit.map {
            ["sh", "-c", "ulimit -n \($0); exec \"$@\"", "sh", TestEnvironment.executable]
        }
        let command = Command(
            path: limited == nil ? TestEnvironment.executable : "/bin/sh",
            arguments: (limited ?? ["aidevops-worker"]) + serve,
            environment: TestEnvironment.variables.filter { $0.key != "PORT" && $0.key != "CLOUDRON" }
                .merging(environment) { $1 })
        lines = []
        pending = []
        pid = try command.spawn(descriptors: [null, pipe.writing.number, pipe.writing.number])
        output = pipe.closeWriting().release()
        guard let line = awaitLine("url=http"), let colon = line.range(of: "url=http://127.0.0.1:"),
            let port = UInt16(line[colon...].prefix { $0.isNumber })
        else { throw TestConnection.Failure(description: "the node didn't start: \(lines)") }
        self.port = port
    }

    /// Reads the node's output up to a line that contains `text`.
    package func awaitLine(_ text: String) -> String? {
        let deadline = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < deadline {
            var ready: Int32 = 0
            guard cs_poll_readable([output], &ready, 1, 1000) > 0 else { continue }
            var chunk = [UInt8](repeating: 0, count: 4096)
            let count = read(output, &chunk, chunk.count)
            if count <= 0 { return nil }
            pending += chunk[..<count]
            while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: pending[..<end], as: UTF8.self)
                pending.removeFirst(end + 1)
                lines.append(line)
                if line.contains(text) { return line }
            }
        }
        return nil
    }

    /// What the node has printed so far.
    package var printed: [String] { lines }

    package func signal(_ signal: Int32) { _ = cs_kill(pid, signal) }

    /// Waits for the node to end.
    /// - Returns: its exit code, or 128 and the signal.
    @discardableResult
    package func awaitExit() -> Int32 {
        guard pid > 0 else { return -1 }
        while awaitLine("\u{0}") != nil {}
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        pid = -1
        close(output)
        return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    }

    /// Ends it at once, as a crash would.
    package func kill() {
        guard pid > 0 else { return }
        signal(SIGKILL)
        awaitExit()
    }

    @discardableResult
    package func stop() -> Int32 {
        signal(SIGTERM)
        return awaitExit()
    }

    /// The processes that work somewhere in the node's folder, by their ids.
    package func processes() -> [String] {
        ((try? Files.names(in: "/proc")) ?? []).filter { name in
            guard Int32(name) != nil else { return false }
            var path = [CChar](repeating: 0, count: 4096)
            let count = readlink("/proc/\(name)/cwd", &path, path.count - 1)
            let target = String(decoding: path.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
            return target.hasPrefix(folder.path)
        }
    }

    // MARK: The API

    package func request(
        _ method: String, _ path: String, headers: [String] = [], body: String? = nil, authenticated: Bool = true
    ) throws -> TestConnection.Answer {
        try TestConnection(port: port).request(
            method, path, token: authenticated ? token : nil, headers: headers, body: body.map { Array($0.utf8) })
    }

    package func dispatch(_ id: String, repo: String = "o/r", more: String = "") throws -> TestConnection.Answer {
        let extra = more.isEmpty ? "" : ", " + more
        return try request(
            "POST", "/dispatch", body: #"{"task_id": "\#(id)", "repo": "\#(repo)", "prompt": "Do it."\#(extra)}"#)
    }

    /// Follows a task's log until the task has ended.
    /// - Returns: its lines.
    package func followToEnd(_ id: String) throws -> [String] {
        let answer = try request("GET", "/workers/\(id)/logs?follow=1&lines=500")
        guard answer.status == 200 else { throw TestConnection.Failure(description: "\(answer)") }
        return answer.body.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    }

    /// Waits, on the open stream of a task's log, for a line that contains `text`.
    package func awaitLog(_ id: String, _ text: String) throws -> Bool {
        let connection = try TestConnection(port: port)
        connection.send(
            "GET /workers/\(id)/logs HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer \(token)\r\n\r\n"
        )
        while let line = connection.readLine() {
            if line.contains(text) { return true }
            if line == "event: end" { return false }
        }
        return false
    }

    /// The task as the API shows it, raw.
    package func worker(_ id: String) throws -> String { try request("GET", "/workers/\(id)").body }

    package func state(_ id: String) throws -> String {
        let body = try worker(id)
        guard let start = body.range(of: #""state":""#) else { return body }
        return String(body[start...].prefix { $0 != "\"" })
    }
}

extension String {
    /// Behind the first place where `text` stands.
    package func range(of text: String) -> String.Index? {
        var at = startIndex
        while at < endIndex {
            if self[at...].hasPrefix(text) { return index(at, offsetBy: text.count) }
            at = index(after: at)
        }
        return nil
    }
}
