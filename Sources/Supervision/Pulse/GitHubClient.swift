package import FoundationEssentials

/// GitHub's REST API through the system's curl, sparingly: conditional requests, all pages, and no request before the moment
/// that GitHub names.
package actor GitHubClient: GitHub {
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe reaper.loop.asUnownedSerialExecutor() }

    private nonisolated let reaper: Reaper
    /// Without a slash at its end.
    let base: String
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

    struct Answer {
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

    func call(_ method: String, _ url: String, body: [UInt8]? = nil) async throws(GitHubFailure) -> Answer {
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

    func decode<Value: Decodable>(_ answer: Answer, _ type: Value.Type = Value.self) throws(GitHubFailure)
        -> Value
    {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        do { return try decoder.decode(type, from: Data(answer.body)) } catch {
            throw GitHubFailure(.other, "GitHub's answer has another form than it must: \(error)")
        }
    }

    /// All pages of a list. The next page's URL comes from GitHub; one elsewhere would get the token.
    func list<Element: Decodable>(_ path: String, of type: Element.Type) async throws(GitHubFailure)
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
