package import FoundationEssentials

/// GitHub's REST API through the system's curl, sparingly: conditional requests, all pages, and no request before the moment
/// that GitHub names.
package actor GitHubClient: GitHub {
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe reaper.loop.asUnownedSerialExecutor() }

    private nonisolated let reaper: Reaper
    /// Without a slash at its end.
    private let base: String
    private let token: String
    private let environment: [String: String]
    private let now: @Sendable () -> Date
    package private(set) var budget = GitHubBudget()
    /// Answers that may be asked for again, by their URL.
    private var cache: [String: Cached] = [:]
    private var blockedUntil: Date?
    private var failures = 0

    private struct Cached {
        var tag: String
        var answer: Answer
    }

    private struct Answer {
        var status: Int
        var headers: [String: String]
        var body: [UInt8]
    }

    private static let timeoutSeconds = 30
    private static let maxAnswerBytes = 16 << 20
    private static let maxPages = 50
    private static let maxCached = 1000
    /// GitHub's advice for secondary limits that name no time.
    private static let secondaryPause = 60.0
    private static let firstPause = 5.0
    private static let longestPause = 600.0

    package init(
        base: String, token: String, environment: [String: String], reaper: Reaper,
        now: @escaping @Sendable () -> Date = { Date() }
    ) {
        self.base = base.hasSuffix("/") ? String(base.dropLast()) : base
        self.token = token
        self.environment = environment
        self.reaper = reaper
        self.now = now
    }

    /// The API of a host that serves repositories: GitHub's own, or an Enterprise server's.
    package static func apiURL(ofGit base: String) -> String {
        guard let host = Names.host(of: base), host.lowercased() != "github.com" else {
            return "https://api.github.com"
        }
        return "https://\(host)/api/v3"
    }

    // MARK: Requests

    private func call(_ method: String, _ url: String, body: [UInt8]? = nil) async throws(GitHubFailure) -> Answer {
        if let blockedUntil, blockedUntil > now() {
            throw GitHubFailure(
                .limited(until: blockedUntil), "GitHub isn't asked before \(blockedUntil.formatted(.iso8601))")
        }
        var request = CurlRequest(url: url)
        request.method = method
        request.timeoutSeconds = GitHubClient.timeoutSeconds
        request.headers = [
            ("Accept", "application/vnd.github+json"), ("X-GitHub-Api-Version", "2022-11-28"),
            ("User-Agent", "aidevops-worker"), ("Authorization", "Bearer \(token)"),
        ]
        let cached = method == "GET" ? cache[url] : nil
        if let cached { request.headers.append(("If-None-Match", cached.tag)) }
        if let body {
            request.headers.append(("Content-Type", "application/json"))
            request.body = body
        }
        request.options = ["include"]
        guard let command = Command(program: "curl", CurlRequest.arguments, environment: environment) else {
            throw GitHubFailure(.other, "curl isn't on PATH")
        }
        let result: Command.Result
        do throws(SystemError) {
            result = try await reaper.run(
                command, input: request.configuration, outputLimit: GitHubClient.maxAnswerBytes,
                timeout: .seconds(GitHubClient.timeoutSeconds + 5))
        } catch { throw GitHubFailure(.other, error.description) }
        budget.requests += 1
        guard result.succeeded, let answer = GitHubClient.parse(result.output) else {
            backOff()
            throw GitHubFailure(
                .unreachable, result.errorText.isEmpty ? "curl ended with \(result.status)" : result.errorText)
        }
        return try accept(answer, cached, url: url, isRead: method == "GET")
    }

    /// The last of the header blocks (a proxy's, and those of redirections come before it), and the body.
    private static func parse(_ output: [UInt8]) -> Answer? {
        var rest = output[...]
        var answer: Answer?
        while rest.starts(with: "HTTP/".utf8) {
            var headers: [String: String] = [:]
            var status = 0
            while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: rest[..<end], as: UTF8.self).trimmed
                rest = rest[(end + 1)...]
                if line.isEmpty { break }
                if line.hasPrefix("HTTP/") {
                    status = line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
                } else if let colon = line.firstIndex(of: ":") {
                    headers[line[..<colon].lowercased()] = String(line[line.index(after: colon)...]).trimmed
                }
            }
            answer = Answer(status: status, headers: headers, body: [])
        }
        answer?.body = Array(rest)
        return answer
    }

    private func accept(_ answer: Answer, _ cached: Cached?, url: String, isRead: Bool) throws(GitHubFailure) -> Answer
    {
        noteBudget(answer)
        switch answer.status {
        case 304:
            budget.notModified += 1
            failures = 0
            guard let cached else { throw GitHubFailure(.other, "GitHub says that nothing changed, unasked") }
            return cached.answer
        case 200..<300:
            failures = 0
            if isRead, let tag = answer.headers["etag"] {
                if cache.count >= GitHubClient.maxCached { cache = [:] }
                cache[url] = Cached(tag: tag, answer: answer)
            }
            return answer
        case 404, 410: throw GitHubFailure(.notFound, "GitHub knows nothing at \(url.dropFirst(base.count))")
        case 403, 429: throw limited(answer)
        case 401: throw GitHubFailure(.forbidden, "GitHub doesn't take GH_TOKEN")
        case 500...:
            backOff()
            throw GitHubFailure(.unreachable, "GitHub answered with status \(answer.status)")
        default: throw GitHubFailure(.other, "GitHub answered with status \(answer.status): \(message(answer))")
        }
    }

    private func noteBudget(_ answer: Answer) {
        if let limit = answer.headers["x-ratelimit-limit"].flatMap({ Int($0) }) { budget.limit = limit }
        if let remaining = answer.headers["x-ratelimit-remaining"].flatMap({ Int($0) }) { budget.remaining = remaining }
        if let reset = answer.headers["x-ratelimit-reset"].flatMap({ Double($0) }) {
            budget.resetsAt = Date(timeIntervalSince1970: reset)
        }
    }

    private func message(_ answer: Answer) -> String {
        struct Words: Decodable { var message: String? }
        let words = (try? JSONDecoder().decode(Words.self, from: Data(answer.body)))?.message ?? ""
        return String(words.prefix(300))
    }

    /// A limit, primary or secondary, or a refusal.
    private func limited(_ answer: Answer) -> GitHubFailure {
        let words = message(answer)
        var until: Date?
        if let seconds = answer.headers["retry-after"].flatMap({ Double($0) }) {
            until = now().addingTimeInterval(seconds)
        } else if answer.headers["x-ratelimit-remaining"] == "0" {
            until = budget.resetsAt
        } else if answer.status == 429 || words.lowercased().contains("rate limit") {
            until = now().addingTimeInterval(GitHubClient.secondaryPause)
        }
        guard let until else { return GitHubFailure(.forbidden, "GitHub refuses: \(words)") }
        blockedUntil = until
        return GitHubFailure(.limited(until: until), "GitHub's limit is reached until \(until.formatted(.iso8601))")
    }

    private func backOff() {
        failures += 1
        let pause = min(GitHubClient.longestPause, GitHubClient.firstPause * Double(1 << min(20, failures - 1)))
        blockedUntil = now().addingTimeInterval(pause)
    }

    private func decode<Value: Decodable>(_ answer: Answer, _ type: Value.Type = Value.self) throws(GitHubFailure)
        -> Value
    {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        do { return try decoder.decode(type, from: Data(answer.body)) } catch {
            throw GitHubFailure(.other, "GitHub's answer has another form than it must: \(error)")
        }
    }

    /// All pages of a list. The next page's URL comes from GitHub; one elsewhere would get the token.
    private func list<Element: Decodable>(_ path: String, of type: Element.Type) async throws(GitHubFailure)
        -> [Element]
    {
        var url = base + path
        var all: [Element] = []
        for _ in 0..<GitHubClient.maxPages {
            let answer = try await call("GET", url)
            all += try decode(answer, [Element].self)
            guard let next = GitHubClient.nextPage(answer.headers["link"]), next.hasPrefix(base + "/") else {
                return all
            }
            url = next
        }
        return all
    }

    /// `<https://…>; rel="next", …` (RFC 8288).
    static func nextPage(_ link: String?) -> String? {
        for part in (link ?? "").split(separator: ",") where part.contains("rel=\"next\"") {
            guard let start = part.firstIndex(of: "<"), let end = part.firstIndex(of: ">"), start < end else {
                continue
            }
            return String(part[part.index(after: start)..<end])
        }
        return nil
    }
}

// MARK: - What the pulse asks and does

extension GitHubClient {
    private struct Person: Decodable { var login: String }

    private struct IssueForm: Decodable {
        struct Label: Decodable { var name: String }
        struct Link: Decodable { var merged_at: String? }
        var number: Int
        var title: String
        var html_url: String
        var state: String
        var labels: [Label]
        var assignees: [Person]?
        var created_at: Date
        var pull_request: Link?

        var issue: Issue {
            Issue(
                number: number, title: GitHubClient.plain(title), url: GitHubClient.plain(html_url),
                labels: labels.map(\.name), assignees: (assignees ?? []).map(\.login), createdAt: created_at,
                isOpen: state == "open", isPullRequest: pull_request != nil)
        }
    }

    private struct CommentForm: Decodable {
        var id: Int
        var user: Person?
        var author_association: String
        var body: String?
        var created_at: Date

        var comment: IssueComment {
            IssueComment(
                id: id, author: user?.login ?? "", association: author_association, body: body ?? "",
                createdAt: created_at)
        }
    }

    /// Without control characters: it becomes an argument and a line of a log.
    private static func plain(_ text: String) -> String {
        String(
            String.UnicodeScalarView(text.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7f }).prefix(500))
    }

    private func path(_ repo: String, _ rest: String) -> String { "/repos/\(repo)/\(rest)" }

    private func encoded(_ value: [String: [String]]) -> [UInt8] {
        (try? JSONEncoder().encode(value)).map(Array.init) ?? []
    }

    package func login() async throws(GitHubFailure) -> String {
        try decode(try await call("GET", base + "/user"), Person.self).login
    }

    package func openIssues(of repo: String) async throws(GitHubFailure) -> [Issue] {
        try await list(path(repo, "issues?state=open&per_page=100"), of: IssueForm.self).map(\.issue)
    }

    package func issue(_ number: Int, of repo: String) async throws(GitHubFailure) -> Issue {
        try decode(try await call("GET", base + path(repo, "issues/\(number)")), IssueForm.self).issue
    }

    package func comments(on number: Int, of repo: String) async throws(GitHubFailure) -> [IssueComment] {
        try await list(path(repo, "issues/\(number)/comments?per_page=100"), of: CommentForm.self).map(\.comment)
            .sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }
    }

    package func comment(_ body: String, on number: Int, of repo: String) async throws(GitHubFailure) -> IssueComment {
        let json = (try? JSONEncoder().encode(["body": body])).map(Array.init) ?? []
        return try decode(
            try await call("POST", base + path(repo, "issues/\(number)/comments"), body: json), CommentForm.self
        ).comment
    }

    package func deleteComment(_ id: Int, of repo: String) async throws(GitHubFailure) {
        try await forgiving { () async throws(GitHubFailure) in
            _ = try await call("DELETE", base + path(repo, "issues/comments/\(id)"))
        }
    }

    package func addLabels(_ labels: [String], to number: Int, of repo: String) async throws(GitHubFailure) {
        _ = try await call("POST", base + path(repo, "issues/\(number)/labels"), body: encoded(["labels": labels]))
    }

    package func removeLabel(_ label: String, from number: Int, of repo: String) async throws(GitHubFailure) {
        let name = label.utf8.map { byte in
            (0x61...0x7a).contains(byte) || (0x41...0x5a).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x2d
                ? String(UnicodeScalar(byte)) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
        }.joined()
        try await forgiving { () async throws(GitHubFailure) in
            _ = try await call("DELETE", base + path(repo, "issues/\(number)/labels/\(name)"))
        }
    }

    package func assign(_ login: String, to number: Int, of repo: String) async throws(GitHubFailure) {
        _ = try await call(
            "POST", base + path(repo, "issues/\(number)/assignees"), body: encoded(["assignees": [login]]))
    }

    package func unassign(_ login: String, from number: Int, of repo: String) async throws(GitHubFailure) {
        _ = try await call(
            "DELETE", base + path(repo, "issues/\(number)/assignees"), body: encoded(["assignees": [login]]))
    }

    package func hasPullRequest(for number: Int, of repo: String) async throws(GitHubFailure) -> Bool {
        struct Event: Decodable {
            struct Source: Decodable { var issue: IssueForm? }
            var event: String?
            var source: Source?

            private enum CodingKeys: String, CodingKey { case event, source }

            // Events of other kinds have a source of other forms.
            init(from decoder: any Decoder) throws {
                let values = try decoder.container(keyedBy: CodingKeys.self)
                event = try? values.decode(String.self, forKey: .event)
                source = try? values.decode(Source.self, forKey: .source)
            }
        }
        return try await list(path(repo, "issues/\(number)/timeline?per_page=100"), of: Event.self).contains { event in
            guard event.event == "cross-referenced", let issue = event.source?.issue, let link = issue.pull_request,
                issue.html_url.contains("/\(repo)/")
            else { return false }
            return issue.state == "open" || link.merged_at != nil
        }
    }

    package func branches(beginning prefix: String, of repo: String) async throws(GitHubFailure) -> [String] {
        struct Reference: Decodable { var ref: String }
        return try await list(path(repo, "git/matching-refs/heads/\(prefix)"), of: Reference.self).map {
            String($0.ref.dropFirst("refs/heads/".count))
        }
    }

    /// What is gone needn't be removed.
    private func forgiving(_ work: () async throws(GitHubFailure) -> Void) async throws(GitHubFailure) {
        do throws(GitHubFailure) { try await work() } catch { if error.kind != .notFound { throw error } }
    }
}
