import Supervision

private struct ChangeView: Encodable {
    var task_id: String
    var repo: String
    var state: TaskState
    var reason: String
    var outcome: TaskOutcome?
    var attempt: Int

    init(_ change: TaskChange) {
        task_id = change.id
        repo = change.repo
        state = change.state
        reason = change.reason
        outcome = change.outcome
        attempt = change.attempt
    }
}

extension NodeAPI {
    /// Every change of a task's state, as server-sent events: from now on, or behind `Last-Event-ID`.
    func events(_ request: HTTPRequest) async -> HTTPResponse {
        let now = await supervisor.lastChange
        // A number from before a restart of the node says nothing here.
        let start = request.headers["last-event-id"].flatMap { UInt64($0) }.map { min($0, now) } ?? now
        return .events(.stream { [supervisor] in await NodeAPI.follow(supervisor, from: start, $0) })
    }

    private static func follow(_ supervisor: Supervisor, from start: UInt64, _ writer: any BodyWriter) async {
        await supervisor.follow(writer.bell)
        var last = start
        // Says at once that the stream is open.
        var isOpen = await writer.write(Array(": open\n\n".utf8))
        while isOpen, await writer.isOpen {
            let (changes, missed) = await supervisor.changes(after: last)
            if !changes.isEmpty || missed > 0 {
                var text = missed > 0 ? "event: missed\ndata: {\"events\":\(missed)}\n\n" : ""
                for change in changes {
                    let data = String(decoding: JSON.encode(ChangeView(change)), as: UTF8.self)
                    text += "id: \(change.number)\nevent: state\ndata: \(data)\n\n"
                    last = change.number
                }
                isOpen = await writer.write(Array(text.utf8))
            } else if await writer.bell.wait(timeout: heartbeatInterval) == .timedOut {
                isOpen = await writer.write(Array(": \n\n".utf8))
            }
        }
        await supervisor.unfollow(writer.bell)
    }
}
