import CSystem
import Glibc
import Supervision

/// Follows a task's log over a node's restarts and lost connections, until the task has ended or the user stops it.
struct LogFollower {
    enum End: Equatable {
        case ended(state: String, outcome: String, reason: String)
        /// Ctrl-C: the task goes on.
        case interrupted
    }

    let client: NodeClient
    let id: String
    /// From this line on; nil: the newest that the node has in memory.
    var after: UInt64?

    /// How long a node that can't be reached is tried again.
    private static let patience = Duration.seconds(60)
    private static let pause: Int32 = 1000

    /// Takes over SIGINT for as long as it runs.
    func run(onLine: @escaping (String) -> Void) throws -> End {
        let numbers = [SIGINT]
        let signals = Descriptor(
            owning: try check(
                unsafe numbers.withUnsafeBufferPointer {
                    unsafe cs_signal_descriptor($0.baseAddress, Int32($0.count))
                }, "signalfd"))
        let progress = Progress(last: after)
        var lostAt: Int64?
        while true {
            do {
                try client.follow("/workers/\(id)/logs", lastEventID: progress.last, interrupt: signals.number) {
                    bytes in
                    for event in progress.reader.read(bytes) { progress.take(event, onLine) }
                }
                if progress.end == nil { lostAt = lostAt ?? cs_monotonic_ns() }
            } catch let error as NodeClient.Unreachable {
                if cs_read_signal(signals.number) == SIGINT { return .interrupted }
                if progress.hasNews { lostAt = nil }
                let since = lostAt ?? cs_monotonic_ns()
                lostAt = since
                guard cs_monotonic_ns() - since < LogFollower.patience.nanoseconds else {
                    throw CommandFailure(message: error.message)
                }
                Terminal.progress("aidevops-worker: the connection was lost; trying again\n")
            }
            progress.hasNews = false
            if let end = progress.end { return end }
            var ready: Int32 = 0
            var watched = signals.number
            if unsafe cs_poll_readable(&watched, &ready, 1, LogFollower.pause) > 0 { return .interrupted }
        }
    }

    private final class Progress {
        var reader = EventStreamReader()
        var last: UInt64?
        var end: End?
        var hasNews = false

        init(last: UInt64?) { self.last = last }

        func take(_ event: EventStreamReader.Event, _ onLine: (String) -> Void) {
            hasNews = true
            switch event.name {
            case "end":
                let json = try? JSONValue(bytes: Array(event.data.utf8))
                end = .ended(
                    state: json?["state"]?.string ?? "unknown", outcome: json?["outcome"]?.string ?? "",
                    reason: json?["reason"]?.string ?? "")
            case "missed":
                let json = try? JSONValue(bytes: Array(event.data.utf8))
                onLine("[\(json?["lines"]?.integer ?? 0) lines were missed]")
            default:
                if let id = event.id { last = id }
                onLine(event.data)
            }
        }
    }
}
