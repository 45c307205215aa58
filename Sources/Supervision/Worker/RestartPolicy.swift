package import FoundationEssentials

/// When an attempt that ended is followed by another, in the terms of OTP's supervisors: a restart intensity of so many
/// restarts within a period, and exponential backoff with jitter between them.
package struct RestartPolicy: Sendable, Equatable, Codable {
    package enum Policy: String, Sendable, Codable, CaseIterable {
        case never
        /// After what isn't the agent's doing: the node stopped, memory ran out, the network failed in the git phase.
        case onInterrupt = "on-interrupt"
        /// After every failure too.
        case onFailure = "on-failure"
    }

    package enum Cause: Sendable, Equatable { case interruption, failure }

    package enum Decision: Sendable, Equatable {
        case restart(after: Duration)
        /// The policy doesn't restart after such a cause.
        case notCovered
        /// The intensity is reached.
        case exhausted
    }

    package var policy = Policy.onInterrupt
    package var maxRestarts = 3
    package var windowSeconds = 3600
    package var backoffSeconds = 5
    package var backoffMaxSeconds = 300

    package init() {}

    /// Decides what follows an attempt.
    /// - Parameters:
    ///   - restarts: when earlier attempts were restarted.
    ///   - jitter: 0 ..< 1; the delay is between half and all of the backoff.
    package func decide(after cause: Cause, restarts: [Date], now: Date, jitter: Double) -> Decision {
        switch (policy, cause) {
        case (.never, _), (.onInterrupt, .failure): return .notCovered
        case (.onInterrupt, .interruption), (.onFailure, _): break
        }
        let recent = restarts.filter { now.timeIntervalSince($0) < Double(windowSeconds) }.count
        guard recent < maxRestarts else { return .exhausted }
        let doubled = Double(backoffSeconds) * Double(1 << min(recent, 20))
        return .restart(after: .seconds(min(doubled, Double(backoffMaxSeconds)) * (0.5 + jitter / 2)))
    }

    /// What is wrong with its numbers, after the name of the one, or nil.
    package var problem: String? {
        let bounds: [(String, Int, ClosedRange<Int>)] = [
            ("max_restarts", maxRestarts, 0...1000), ("window_seconds", windowSeconds, 1...31_536_000),
            ("backoff_seconds", backoffSeconds, 0...86_400), ("backoff_max_seconds", backoffMaxSeconds, 0...604_800),
        ]
        return bounds.first { !$0.2.contains($0.1) }.map {
            "\($0.0) must be between \($0.2.lowerBound) and \($0.2.upperBound)"
        }
    }

    /// Takes what is there, and the defaults for the rest.
    package init(lenient decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        self.init()
        policy = try values.decodeIfPresent(Policy.self, forKey: .policy) ?? policy
        maxRestarts = try values.decodeIfPresent(Int.self, forKey: .maxRestarts) ?? maxRestarts
        windowSeconds = try values.decodeIfPresent(Int.self, forKey: .windowSeconds) ?? windowSeconds
        backoffSeconds = try values.decodeIfPresent(Int.self, forKey: .backoffSeconds) ?? backoffSeconds
        backoffMaxSeconds = try values.decodeIfPresent(Int.self, forKey: .backoffMaxSeconds) ?? backoffMaxSeconds
    }

    enum CodingKeys: String, CodingKey, CaseIterable {
        case policy
        case maxRestarts = "max_restarts"
        case windowSeconds = "window_seconds"
        case backoffSeconds = "backoff_seconds"
        case backoffMaxSeconds = "backoff_max_seconds"
    }
}
