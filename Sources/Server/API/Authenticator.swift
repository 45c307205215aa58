import Supervision

/// Decides whether a request may use the authenticated routes, and slows down who guesses. Lives on the event loop.
struct Authenticator {
    enum Verdict: Equatable {
        case accepted
        case refused
        /// Too many failures from there; with the seconds to wait.
        case throttled(seconds: Int)
    }

    /// A longer token isn't taken from the configuration.
    static let maxTokenBytes = 256
    private static let maxFailures = 10
    private static let window: Int64 = 60_000_000_000
    /// Addresses whose failures are remembered; when there are more, the oldest are forgotten.
    private static let maxAddresses = 4096

    private struct Failures {
        var count: Int
        var since: Int64
    }

    private let token: [UInt8]
    private let length: Int
    private var failures: [String: Failures] = [:]

    /// - Parameter token: empty: nobody is let in.
    init(token: String) {
        let bytes = Array(token.utf8.prefix(Authenticator.maxTokenBytes))
        length = bytes.count
        self.token = bytes + [UInt8](repeating: 0, count: Authenticator.maxTokenBytes - bytes.count)
    }

    /// The failures so far stay in force for another token.
    mutating func replace(token: String) {
        let failures = failures
        self = Authenticator(token: token)
        self.failures = failures
    }

    /// - Parameter now: monotonic nanoseconds.
    mutating func check(_ request: HTTPRequest, client: String, now: Int64) -> Verdict {
        let known = failures[client].flatMap { now - $0.since < Authenticator.window ? $0 : nil }
        if let known, known.count >= Authenticator.maxFailures {
            return .throttled(seconds: Int((known.since + Authenticator.window - now) / 1_000_000_000) + 1)
        }
        let fields = request.headers.all("authorization")
        if fields.count == 1, matches(presented(in: fields[0])) {
            failures[client] = nil
            return .accepted
        }
        // Only a wrong token is a guess; none at all is a client that doesn't know that it needs one.
        if !fields.isEmpty {
            remember(Failures(count: (known?.count ?? 0) + 1, since: known?.since ?? now), client, now)
        }
        return .refused
    }

    private mutating func remember(_ failure: Failures, _ client: String, _ now: Int64) {
        if failures.count >= Authenticator.maxAddresses {
            failures = failures.filter { now - $0.value.since < Authenticator.window }
            if failures.count >= Authenticator.maxAddresses { failures = [:] }
        }
        failures[client] = failure
    }

    private func presented(in field: String) -> [UInt8] {
        let words = field.split(separator: " ", maxSplits: 1)
        guard words.count == 2, words[0].lowercased() == "bearer" else { return [] }
        return Array(words[1].withoutBlanks.utf8)
    }

    /// Takes the same time whatever is presented, and whatever its length.
    private func matches(_ presented: [UInt8]) -> Bool {
        var difference = presented.count ^ length
        for index in 0..<Authenticator.maxTokenBytes {
            let byte = index < presented.count ? presented[index] : 0
            difference |= Int(byte ^ token[index])
        }
        return difference == 0 && length > 0
    }
}
