import FoundationEssentials

/// What has happened since the node started, for its metrics.
package struct NodeCounters: Sendable, Equatable {
    /// Ended tasks by their state.
    package var ended: [TaskState: Int] = [:]
    package var restarts = 0
    package var dispatched = 0
    package var refused = 0
    package var inputTokens = 0
    package var outputTokens = 0
    package var costUSD = 0.0
    package var durations = Histogram(bounds: [10, 60, 300, 900, 1800, 3600, 7200, 14_400])

    mutating func count(_ new: TaskRecord, after old: TaskRecord?) {
        if let old { restarts += max(0, new.restarts.count - old.restarts.count) }
        guard new.state.isEnded, old?.state.isEnded != true else { return }
        ended[new.state, default: 0] += 1
        inputTokens += new.usage?.inputTokens ?? 0
        outputTokens += new.usage?.outputTokens ?? 0
        costUSD += new.usage?.costUSD ?? 0
        if let end = new.endedAt { durations.add(max(0, end.timeIntervalSince(new.createdAt))) }
    }
}

/// Counts of samples below fixed bounds, as Prometheus has them.
package struct Histogram: Sendable, Equatable {
    package let bounds: [Double]
    /// Not cumulative; the last counts what is above every bound.
    package private(set) var counts: [Int]
    package private(set) var sum = 0.0

    package init(bounds: [Double]) {
        self.bounds = bounds
        counts = [Int](repeating: 0, count: bounds.count + 1)
    }

    package mutating func add(_ sample: Double) {
        counts[bounds.firstIndex { sample <= $0 } ?? bounds.count] += 1
        sum += sample
    }
}
