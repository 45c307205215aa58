import Supervision

extension NodeAPI {
    private static let maxRequestedLines = 100_000
    /// Lines sent in one piece to a follower.
    private static let followBatch = LogBuffer.maxLines
    /// Proxies cut connections that are silent for about a minute.
    static let heartbeatInterval = Duration.seconds(15)

    func logs(_ id: String, _ request: HTTPRequest) async -> HTTPResponse {
        guard Names.problem(taskID: id) == nil else { return .noTask(id) }
        guard let wanted = Int(request.parameter("lines") ?? "\(LogBuffer.maxLines)"),
            (0...NodeAPI.maxRequestedLines).contains(wanted)
        else { return .wrongParameter("lines", "must be a number from 0 to \(NodeAPI.maxRequestedLines)") }
        let wantsEvents = request.headers.lists("accept", "text/event-stream")
        let resumesAfter = request.headers["last-event-id"].flatMap { UInt64($0) }
        do throws(SystemError) {
            guard let log = try await supervisor.log(of: id, lines: wanted) else { return .noTask(id) }
            if wantsEvents {
                return .events(.stream { [self] in await follow(id, EventStream($0), from: log, after: resumesAfter) })
            }
            if let follow = request.parameter("follow"), follow != "0" {
                return .plain(.stream { [self] in await self.follow(id, PlainStream($0), from: log, after: nil) })
            }
            return .plain(.bytes(Array(String(decoding: log.lines.bytes, as: UTF8.self).utf8)))
        } catch {
            return .retryLater(503, ErrorView("The log can't be read: \(error)."), after: 10)
        }
    }

    /// Sends what there is of a log, and then each line as it comes, until the task has ended or the client has left.
    private func follow(_ id: String, _ stream: some LogStream, from log: LogSnapshot, after resume: UInt64?) async {
        guard let worker = await supervisor.worker(id) else {
            let lines = log.lines.dropping(upTo: resume)
            if await stream.send(lines) { await stream.end(await supervisor.record(of: id) ?? log.record) }
            return
        }
        let bell = stream.writer.bell
        await worker.follow(bell)
        var last = log.lines.first + UInt64(log.lines.count) - 1
        if let resume { last = resume } else if await !stream.send(log.lines) { return await worker.unfollow(bell) }
        while await stream.writer.isOpen {
            let (lines, hasEnded) = await worker.read(after: last, limit: NodeAPI.followBatch)
            if lines.count > 0 || lines.missed > 0 {
                missedLines += lines.missed
                guard await stream.send(lines) else { break }
                last = lines.first + UInt64(lines.count) - 1
            } else if hasEnded {
                await stream.end(await worker.record)
                break
            } else if await bell.wait(timeout: NodeAPI.heartbeatInterval) == .timedOut, await !stream.beat() {
                break
            }
        }
        await worker.unfollow(bell)
    }
}

extension LogBuffer.Lines {
    /// Without the lines up to number `sequence`.
    fileprivate func dropping(upTo sequence: UInt64?) -> LogBuffer.Lines {
        guard let sequence, sequence >= first else { return self }
        let drop = Int(min(UInt64(count), sequence - first + 1))
        var rest = bytes[...]
        for _ in 0..<drop { rest = rest[((rest.firstIndex(of: UInt8(ascii: "\n")) ?? rest.endIndex - 1) + 1)...] }
        return LogBuffer.Lines(first: first + UInt64(drop), bytes: Array(rest), count: count - drop)
    }
}

/// The form in which a follower gets a log.
private protocol LogStream: Sendable {
    var writer: any BodyWriter { get }
    func send(_ lines: LogBuffer.Lines) async -> Bool
    func beat() async -> Bool
    func end(_ record: TaskRecord) async
}

private struct PlainStream: LogStream {
    let writer: any BodyWriter

    init(_ writer: any BodyWriter) { self.writer = writer }

    func send(_ lines: LogBuffer.Lines) async -> Bool {
        let gap = lines.missed > 0 ? "[\(lines.missed) lines were missed]\n" : ""
        return await writer.write(Array((gap + String(decoding: lines.bytes, as: UTF8.self)).utf8))
    }

    func beat() async -> Bool { await writer.isOpen }
    func end(_ record: TaskRecord) async {}
}

/// Server-sent events (WHATWG HTML, 9.2): one a line, its id the line's number; `missed` and `end` beside.
private struct EventStream: LogStream {
    let writer: any BodyWriter

    private struct End: Encodable {
        var state: TaskState
        var outcome: TaskOutcome?
        var reason: String
    }

    init(_ writer: any BodyWriter) { self.writer = writer }

    func send(_ lines: LogBuffer.Lines) async -> Bool {
        var text = lines.missed > 0 ? "event: missed\ndata: {\"lines\":\(lines.missed)}\n\n" : ""
        var number = lines.first
        for line in lines.bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).prefix(
            lines.count)
        {
            // A carriage return would end the field.
            let words = String(decoding: line, as: UTF8.self).split(omittingEmptySubsequences: false) { $0.isNewline }
            text += "id: \(number)\n" + words.map { "data: \($0)\n" }.joined() + "\n"
            number += 1
        }
        return await writer.write(Array(text.utf8))
    }

    func beat() async -> Bool { await writer.write(Array(": \n\n".utf8)) }

    func end(_ record: TaskRecord) async {
        let end = End(state: record.state, outcome: record.outcome, reason: record.reason)
        let data = String(decoding: JSON.encode(end), as: UTF8.self)
        _ = await writer.write(Array("event: end\ndata: \(data)\n\n".utf8))
    }
}
