/// The newest changes of tasks' states, numbered, for those who follow the node.
///
/// A follower that falls behind is told how many it missed; the feed's memory is bounded whoever follows.
struct EventFeed {
    /// Changes that are kept for followers.
    static let capacity = 1000

    private var changes: [TaskChange] = []
    private(set) var next: UInt64 = 1
    private var followers: [ObjectIdentifier: Wakeup] = [:]

    mutating func append(_ record: TaskRecord) {
        changes.append(TaskChange(number: next, record: record))
        next += 1
        if changes.count > 2 * EventFeed.capacity { changes.removeFirst(changes.count - EventFeed.capacity) }
        for follower in followers.values { follower.signal() }
    }

    /// The changes behind `number`, and how many of them are no longer here.
    func changes(after number: UInt64) -> (changes: [TaskChange], missed: UInt64) {
        let wanted = min(number, next - 1) + 1
        let first = next - UInt64(changes.count)
        let from = max(wanted, first)
        return (Array(changes[Int(from - first)...]), from - wanted)
    }

    mutating func follow(_ wakeup: Wakeup) { followers[ObjectIdentifier(wakeup)] = wakeup }
    mutating func unfollow(_ wakeup: Wakeup) { followers[ObjectIdentifier(wakeup)] = nil }
}

/// A task's state at one moment.
package struct TaskChange: Sendable, Equatable {
    package var number: UInt64
    package var id: String
    package var repo: String
    package var state: TaskState
    package var reason: String
    package var outcome: TaskOutcome?
    package var attempt: Int

    init(number: UInt64, record: TaskRecord) {
        self.number = number
        id = record.id
        repo = record.spec.repo
        state = record.state
        reason = record.reason
        outcome = record.outcome
        attempt = record.attempts.count
    }
}

extension Supervisor {
    package var lastChange: UInt64 { feed.next - 1 }
    package func changes(after number: UInt64) -> (changes: [TaskChange], missed: UInt64) {
        feed.changes(after: number)
    }
    package func follow(_ wakeup: Wakeup) { feed.follow(wakeup) }
    package func unfollow(_ wakeup: Wakeup) { feed.unfollow(wakeup) }
}
