import CSystem

/// What an attempt's output tells of the agent's work: collected line by line, in bounded memory.
package struct AgentEvidence: Sendable, Equatable {
    /// A fault of the model's provider, from a structured error.
    package enum ProviderError: String, Sendable, Codable {
        case authentication = "auth_error"
        case access = "access_denied"
        case rateLimit = "rate_limit"
        case quota = "quota_exceeded"
        case provider = "provider_error"
    }

    package struct Failure: Sendable, Equatable {
        package var provider: ProviderError?
        package var message: String
    }

    package private(set) var sessionID: String?
    package private(set) var usage = Usage()
    /// The last marker that the model put on a line of its own.
    package private(set) var marker: Marker?
    package private(set) var failure: Failure?
    /// The agent's own closing word, where it has one.
    package private(set) var result: Bool?
    package private(set) var printedAnything = false
    /// Whether a tool call that succeeded pushed commits, or opened or merged a pull request.
    package private(set) var sawPush = false
    package private(set) var sawPullRequest = false
    package private(set) var pullRequest: String?

    package enum Marker: String, Sendable, CaseIterable {
        case fullLoopComplete = "FULL_LOOP_COMPLETE"
        case taskComplete = "TASK_COMPLETE"
        case postPRHandoff = "POST_PR_HANDOFF"
        case blocked = "BLOCKED"

        fileprivate static let firstBytes = Set(allCases.compactMap(\.rawValue.utf8.first))
    }

    private let dialect: AgentPreset.Dialect
    /// `/OWNER/REPO/pull/`, what a link to a pull request of the task's repository has in it.
    private let pullRequestPath: [UInt8]
    private var openCalls: [String: String] = [:]

    private static let maxOpenCalls = 64
    private static let maxMessageBytes = 600
    /// As much of a plain line as may hold a marker and the beginning of its reason.
    private static let maxMarkerLine = 200

    package init(dialect: AgentPreset.Dialect, repo: String) {
        self.dialect = dialect
        pullRequestPath = Array("/\(repo)/pull/".utf8)
    }

    /// Takes whole lines of the agent's standard output.
    package mutating func read(lines: [UInt8]) {
        printedAnything = true
        findPullRequest(in: lines)
        // Most of what agents print tells nothing: a line is looked into only when its first byte may begin what does.
        var start = 0
        for end in LineEnds(lines) {
            let line = lines[start..<end]
            start = end + 1
            guard let first = line.first(where: { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\t") }) else {
                continue
            }
            if dialect == .plainText {
                if Marker.firstBytes.contains(first) {
                    readMarkers(in: String(decoding: line.prefix(AgentEvidence.maxMarkerLine), as: UTF8.self))
                }
            } else if first == UInt8(ascii: "{") {
                for event in AgentEvent.events(in: line, dialect: dialect) { take(event) }
            }
        }
    }

    private mutating func take(_ event: AgentEvent) {
        switch event {
        case .session(let identifier):
            if identifier.utf8.count <= 200, !identifier.hasPrefix("-") { sessionID = identifier }
        case .text(let text): readMarkers(in: text)
        case .toolCall(let identifier, let command):
            if openCalls.count >= AgentEvidence.maxOpenCalls { openCalls = [:] }
            openCalls[identifier] = command
        case .toolResult(let identifier, let succeeded):
            guard let command = openCalls.removeValue(forKey: identifier), succeeded else { return }
            if command.contains("git push") { sawPush = true }
            if command.contains("gh pr create") || command.contains("gh pr merge") { sawPullRequest = true }
        case .usage(let used): usage = usage + used
        case .totalUsage(let used): usage = used
        case .error(let kind, let message, let status):
            failure = Failure(
                provider: AgentEvidence.classify(kind: kind, message: message, status: status),
                message: String(decoding: message.utf8.prefix(AgentEvidence.maxMessageBytes), as: UTF8.self))
        case .result(let succeeded, _):
            result = succeeded
            if succeeded { failure = nil }
        }
    }

    private mutating func readMarkers(in text: String) {
        for line in text.split(whereSeparator: \.isNewline) {
            let words = String(line).trimmed
            if let found = Marker(rawValue: words) { marker = found }
            // BLOCKED comes with its reason.
            if words.hasPrefix("BLOCKED:") { marker = .blocked }
        }
    }

    private static func classify(kind: String, message: String, status: Int?) -> ProviderError? {
        let words = (kind + " " + message).lowercased()
        func says(_ signs: String...) -> Bool { signs.contains { words.contains($0) } }
        let code = status ?? [401, 403, 429].first { says("\($0)") }
        switch code {
        case 401: return .authentication
        case 403: return .access
        case 429: return says("quota", "insufficient", "credit", "billing") ? .quota : .rateLimit
        case .some(500...599): return .provider
        default: break
        }
        if says("providerautherror", "authentication_error", "invalid api key", "invalid x-api-key") {
            return .authentication
        }
        if says("permission_error", "access denied") { return .access }
        if says("quota", "credit balance", "insufficient_quota") { return .quota }
        if says("rate limit", "rate_limit", "ratelimit") { return .rateLimit }
        return says("overloaded", "api_error", "internal server error") ? .provider : nil
    }

    private mutating func findPullRequest(in lines: [UInt8]) {
        let at = unsafe lines.withUnsafeBytes { lines in
            unsafe pullRequestPath.withUnsafeBytes { path in
                unsafe cs_find(lines.baseAddress, Int64(lines.count), path.baseAddress, Int64(path.count))
            }
        }
        guard at >= 0 else { return }
        let found = Int(at)
        let end = lines[(found + pullRequestPath.count)...].prefix {
            (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
        }.endIndex
        guard end > found + pullRequestPath.count else { return }
        let host = lines[..<found].suffix(100).reversed().prefix { byte in
            byte > 0x20 && byte < 0x7f && !"\"'<>()[]\\`".utf8.contains(byte)
        }
        let link =
            String(decoding: host.reversed(), as: UTF8.self) + String(decoding: lines[found..<end], as: UTF8.self)
        if let scheme = link.range(ofText: "https://") { pullRequest = String(link[scheme...]) }
    }
}

extension String {
    /// Where `text` begins last in this string.
    fileprivate func range(ofText text: String) -> String.Index? {
        indices.last { self[$0...].hasPrefix(text) }
    }
}
