import CSystem
import Dispatch
package import FoundationEssentials
import Glibc
import Supervision
import Synchronization

/// GitHub's REST API as far as the pulse uses it, over real HTTP on loopback: ETags and 304, pages of 100, rate limits, and
/// faults as the test wants them. Comments have times of whole seconds, as GitHub's do.
package final class TestGitHub: Sendable {
    package struct Comment: Sendable {
        package var id: Int
        package var author: String
        package var association = "MEMBER"
        package var body: String
        package var createdAt: Date

        package init(id: Int, author: String, body: String, createdAt: Date) {
            self.id = id
            self.author = author
            self.body = body
            self.createdAt = createdAt
        }
    }

    package struct TestIssue: Sendable {
        package var number: Int
        package var title: String
        package var labels: [String] = []
        package var assignees: [String] = []
        package var isOpen = true
        package var createdAt = Date(timeIntervalSince1970: 1_700_000_000)
        package var comments: [Comment] = []
        /// The state of a pull request that refers to it: `open`, `merged` or `closed`.
        package var pullRequest: String?

        package init(_ number: Int, _ title: String = "Do it", labels: [String] = []) {
            self.number = number
            self.title = title
            self.labels = labels
        }
    }

    package struct State: Sendable {
        package var issues: [String: [Int: TestIssue]] = [:]
        package var branches: [String: [String]] = [:]
        /// Logins by token.
        package var logins: [String: String] = [:]
        package var lastID = 1000
        package var requests: [String] = []
        package var notModified = 0
        /// What the next requests are answered with instead, each with a part of its request line to wait for.
        package var faults: [(match: String, answer: String)] = []
        package var remaining = 5000
        /// The most assignees that an issue ever had at once.
        package var mostAssignees = 0
    }

    private let state = Mutex(State())
    private let listener: Int32
    package let port: UInt16
    private let ended = Atomic(false)

    package init() throws {
        var port: UInt16 = 0
        listener = cs_listen("127.0.0.1", 0, 256, &port)
        guard listener >= 0 else { throw SystemError("listen", errno: -listener) }
        self.port = port
        let thread = DispatchQueue(label: "github")
        thread.async { [self, listener] in
            var watched = listener
            var ready: Int32 = 0
            while !ended.load(ordering: .relaxed) {
                guard cs_poll_readable(&watched, &ready, 1, 100) > 0 else { continue }
                var address = [CChar](repeating: 0, count: 64)
                let connection = cs_accept(listener, &address, 64)
                if connection >= 0 { DispatchQueue.global().async { [self] in serve(connection) } }
            }
            close(listener)
        }
    }

    package func stop() { ended.store(true, ordering: .relaxed) }

    package var url: String { "http://127.0.0.1:\(port)" }

    package func edit<Result: Sendable>(_ change: (inout sending State) -> Result) -> Result {
        state.withLock { change(&$0) }
    }

    package func add(_ issues: [TestIssue], to repo: String) {
        edit { state in for issue in issues { state.issues[repo, default: [:]][issue.number] = issue } }
    }

    package func issue(_ number: Int, of repo: String) -> TestIssue? { edit { $0.issues[repo]?[number] } }

    // MARK: HTTP

    private struct Request {
        var method = ""
        var path = ""
        var query: [String: String] = [:]
        var headers: [String: String] = [:]
        var body: [UInt8] = []
    }

    private func serve(_ connection: Int32) {
        defer { close(connection) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        let blank = Array("\r\n\r\n".utf8)
        func more() -> Bool {
            var watched = connection
            var ready: Int32 = 0
            guard cs_poll_readable(&watched, &ready, 1, 30_000) > 0 else { return false }
            let count = read(connection, &chunk, chunk.count)
            if count > 0 { bytes += chunk[..<count] }
            return count > 0
        }
        while cs_find(bytes, Int64(bytes.count), blank, 4) < 0 { guard more() else { return } }
        let end = Int(cs_find(bytes, Int64(bytes.count), blank, 4))
        let lines = String(decoding: bytes[..<end], as: UTF8.self).split(separator: "\r\n")
        var request = Request()
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.count == 2 { request.headers[parts[0].lowercased()] = String(parts[1]).trimmed }
        }
        let length = request.headers["content-length"].flatMap { Int($0) } ?? 0
        while bytes.count < end + 4 + length { guard more() else { return } }
        request.body = Array(bytes[(end + 4)..<(end + 4 + length)])
        let words = lines[0].split(separator: " ").map(String.init)
        request.method = words[0]
        let target = words[1].split(separator: "?", maxSplits: 1).map(String.init)
        request.path = target[0]
        for pair in (target.count > 1 ? target[1] : "").split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1).map(String.init)
            if parts.count == 2 { request.query[parts[0]] = parts[1] }
        }
        let answer = Array(answer(request).utf8)
        _ = cs_send(connection, answer, Int64(answer.count))
    }

    private func answer(_ request: Request) -> String {
        edit { state in
            let line = "\(request.method) \(request.path)"
            state.requests.append(line)
            if let fault = state.faults.firstIndex(where: { line.contains($0.match) }) {
                return state.faults.remove(at: fault).answer
            }
            let token = (request.headers["authorization"] ?? "").split(separator: " ").last.map(String.init) ?? ""
            guard let login = state.logins[token] else {
                return TestGitHub.plain(401, #"{"message":"Bad credentials"}"#)
            }
            guard let (status, body, link) = TestGitHub.route(request, login, url: url, &state) else {
                return TestGitHub.plain(404, #"{"message":"Not Found"}"#)
            }
            let tag = "\"\(TestGitHub.tag(body + link))\""
            let limits =
                "X-RateLimit-Limit: 5000\r\nX-RateLimit-Remaining: \(state.remaining)\r\nX-RateLimit-Reset: 4102444800\r\n"
            if request.method == "GET", request.headers["if-none-match"] == tag {
                state.notModified += 1
                return "HTTP/1.1 304 Not Modified\r\nETag: \(tag)\r\n\(limits)Connection: close\r\n\r\n"
            }
            state.remaining -= 1
            let head = "HTTP/1.1 \(status) X\r\nContent-Type: application/json\r\nETag: \(tag)\r\n\(limits)"
            let next = link.isEmpty ? "" : "Link: <\(link)>; rel=\"next\"\r\n"
            return head + next + "Content-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n" + body
        }
    }

    package static func plain(_ status: Int, _ body: String, headers: String = "") -> String {
        "HTTP/1.1 \(status) X\r\n\(headers)Content-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n\(body)"
    }

    private static func tag(_ text: String) -> String {
        text.utf8.reduce(UInt64(14_695_981_039_346_656_037)) { ($0 ^ UInt64($1)) &* 1_099_511_628_211 }.description
    }

    // MARK: Routes

    private static func quoted(_ text: String) -> String {
        (try? JSONEncoder().encode(text)).map { String(decoding: $0, as: UTF8.self) } ?? "\"\""
    }

    private static func json(_ issue: TestIssue, _ repo: String) -> String {
        let labels = issue.labels.map { #"{"name":\#(quoted($0))}"# }.joined(separator: ",")
        let people = issue.assignees.map { #"{"login":\#(quoted($0))}"# }.joined(separator: ",")
        return
            #"{"number":\#(issue.number),"title":\#(quoted(issue.title)),"html_url":"https://github.com/\#(repo)/issues/\#(issue.number)","state":"\#(issue.isOpen ? "open" : "closed")","labels":[\#(labels)],"assignees":[\#(people)],"created_at":"\#(issue.createdAt.formatted(.iso8601))"}"#
    }

    private static func json(_ comment: Comment) -> String {
        #"{"id":\#(comment.id),"user":{"login":\#(quoted(comment.author))},"author_association":"\#(comment.association)","body":\#(quoted(comment.body)),"created_at":"\#(comment.createdAt.formatted(.iso8601))"}"#
    }

    private static func page(_ items: [String], _ request: Request, url: String) -> (Int, String, String) {
        let number = request.query["page"].flatMap { Int($0) } ?? 1
        let size = request.query["per_page"].flatMap { Int($0) } ?? 30
        let first = (number - 1) * size
        let part = first < items.count ? Array(items[first..<min(items.count, first + size)]) : []
        let link = first + size < items.count ? "\(url)\(request.path)?per_page=\(size)&page=\(number + 1)" : ""
        return (200, "[" + part.joined(separator: ",") + "]", link)
    }

    private struct Words: Decodable {
        var body: String?
        var labels: [String]?
        var assignees: [String]?
        var issue: Int?
    }

    private static func route(_ request: Request, _ login: String, url: String, _ state: inout State) -> (
        Int, String, String
    )? {
        let parts = request.path.split(separator: "/").map { $0.removingPercentEncoding }
        if parts == ["user"] { return (200, #"{"login":\#(quoted(login))}"#, "") }
        guard parts.count > 3, parts[0] == "repos" else { return nil }
        let repo = "\(parts[1])/\(parts[2])"
        let words = try? JSONDecoder().decode(Words.self, from: Data(request.body))
        switch (request.method, parts[3], parts.count) {
        case ("GET", "issues", 4):
            let open = (state.issues[repo] ?? [:]).values.filter(\.isOpen).sorted { $0.number > $1.number }
            return page(open.map { json($0, repo) }, request, url: url)
        case ("GET", "git", _):
            let prefix = parts[6...].joined(separator: "/")
            let found = (state.branches[repo] ?? []).filter { $0.hasPrefix(prefix) }
            return page(found.map { #"{"ref":"refs/heads/\#($0)"}"# }, request, url: url)
        case ("POST", "pulls", 4):
            guard let number = words?.issue, state.issues[repo]?[number] != nil else { return nil }
            state.issues[repo]?[number]?.pullRequest = "open"
            return (201, "{}", "")
        case ("DELETE", "issues", 6) where parts[4] == "comments":
            guard let id = Int(parts[5]) else { return nil }
            for (number, issue) in state.issues[repo] ?? [:] where issue.comments.contains(where: { $0.id == id }) {
                state.issues[repo]?[number]?.comments.removeAll { $0.id == id }
                return (204, "", "")
            }
            return nil
        case (_, "issues", 5...):
            guard let number = Int(parts[4]), var issue = state.issues[repo]?[number] else { return nil }
            defer { state.issues[repo]?[number] = issue }
            return about(request, Array(parts.dropFirst(5)), &issue, repo, login, words, url: url, &state)
        default: return nil
        }
    }

    private static func about(
        _ request: Request, _ rest: [String], _ issue: inout TestIssue, _ repo: String, _ login: String,
        _ words: Words?,
        url: String, _ state: inout State
    ) -> (Int, String, String)? {
        switch (request.method, rest.first) {
        case ("GET", nil): return (200, json(issue, repo), "")
        case ("GET", "comments"): return page(issue.comments.map(json), request, url: url)
        case ("POST", "comments"):
            state.lastID += 1
            let now = Date(timeIntervalSince1970: Date().timeIntervalSince1970.rounded(.down))
            let comment = Comment(id: state.lastID, author: login, body: words?.body ?? "", createdAt: now)
            issue.comments.append(comment)
            return (201, json(comment), "")
        case ("GET", "timeline"):
            guard let pull = issue.pullRequest else { return page([], request, url: url) }
            let merged = pull == "merged" ? #""2026-01-01T00:00:00Z""# : "null"
            return page(
                [
                    #"{"event":"labeled","source":7}"#,
                    #"{"event":"cross-referenced","source":{"issue":{"number":9,"title":"PR","html_url":"https://github.com/\#(repo)/pull/9","state":"\#(pull == "open" ? "open" : "closed")","labels":[],"created_at":"2026-01-01T00:00:00Z","pull_request":{"merged_at":\#(merged)}}}}"#,
                ], request, url: url)
        case ("POST", "labels"):
            for label in words?.labels ?? [] where !issue.labels.contains(label) { issue.labels.append(label) }
            return (200, "[]", "")
        case ("DELETE", "labels"):
            guard let label = rest.last, issue.labels.contains(label) else { return nil }
            issue.labels.removeAll { $0 == label }
            return (200, "[]", "")
        case ("POST", "assignees"):
            for person in words?.assignees ?? [] where !issue.assignees.contains(person) {
                issue.assignees.append(person)
            }
            state.mostAssignees = max(state.mostAssignees, issue.assignees.count)
            return (201, json(issue, repo), "")
        case ("DELETE", "assignees"):
            issue.assignees.removeAll { words?.assignees?.contains($0) ?? false }
            return (200, json(issue, repo), "")
        default: return nil
        }
    }
}

extension Substring {
    fileprivate var removingPercentEncoding: String {
        var bytes: [UInt8] = []
        var rest = utf8[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
