import CSystem

/// What went through a log.
package struct LogFigures: Sendable, Equatable {
    /// From the worker's process, before redaction.
    package var receivedBytes = 0
    package var lines = 0
    /// Left out of the file because the disk didn't take them.
    package var unstoredBytes = 0

    static func + (left: LogFigures, right: LogFigures) -> LogFigures {
        var sum = left
        sum.receivedBytes += right.receivedBytes
        sum.lines += right.lines
        sum.unstoredBytes += right.unstoredBytes
        return sum
    }
}

/// The log of one task: takes its process's output in whatever pieces it comes, and keeps the newest lines in memory and
/// all of them, up to a limit, in a file.
///
/// Lives on the event loop, owned by its worker. Every line is redacted before it's kept or shown anywhere.
final class TaskLog {
    enum Source: Int, CaseIterable { case output, errors }

    /// A longer line is cut into several.
    static let maxLineBytes = 256 * 1024
    /// What waits for the disk, beside as much that is being written; more is left out of the file, and counted.
    static let maxPendingBytes = 4 << 20

    private struct Stream {
        var redactor: Redactor
        /// The line that hasn't ended yet.
        var partial: [UInt8] = []
    }

    private(set) var buffer: LogBuffer
    private(set) var figures = LogFigures()
    private var streams: [Stream]
    private var ownRedactor: Redactor
    private var pending: [UInt8] = []
    private var isStoring = false
    private var followers: [ObjectIdentifier: Wakeup] = [:]
    private let file: LogFile
    private let lane: BlockingLane
    /// Told of whole lines of the agent's standard output.
    var observer: (([UInt8]) -> Void)?
    /// Told when there is something for the file.
    var onPending: () -> Void = {}

    /// - Parameter next: the number of the next line, behind those of earlier runs of the node.
    init(file: LogFile, lane: BlockingLane, secrets: SecretSet, next: UInt64) {
        self.file = file
        self.lane = lane
        buffer = LogBuffer(next: next)
        streams = Source.allCases.map { _ in Stream(redactor: Redactor(secrets)) }
        ownRedactor = Redactor(secrets)
    }

    /// Takes new secrets into account from the next byte on.
    func redact(_ secrets: SecretSet) {
        for source in Source.allCases { endPieces(of: source, endsLine: false) }
        for index in streams.indices { streams[index].redactor = Redactor(secrets) }
        ownRedactor = Redactor(secrets)
    }

    func receive(_ bytes: [UInt8], from source: Source) {
        figures.receivedBytes += bytes.count
        take(streams[source.rawValue].redactor.redact(bytes), from: source)
    }

    /// Appends lines of the node's own.
    func note(_ text: String) {
        let line = ownRedactor.redact(Array(text.utf8)) + ownRedactor.flush()
        append(line + [UInt8(ascii: "\n")])
    }

    /// Lets out what is held back of each stream, after a silence or at their end.
    func endPieces(endsLine: Bool) {
        for source in Source.allCases { endPieces(of: source, endsLine: endsLine) }
    }

    var isHoldingPieces: Bool { streams.contains { $0.redactor.isHolding } }

    private func endPieces(of source: Source, endsLine: Bool) {
        take(streams[source.rawValue].redactor.flush(), from: source)
        if endsLine, !streams[source.rawValue].partial.isEmpty { take([UInt8(ascii: "\n")], from: source) }
    }

    private func take(_ bytes: [UInt8], from source: Source) {
        guard let newline = bytes.lastIndex(of: UInt8(ascii: "\n")) else {
            streams[source.rawValue].partial += bytes
            if streams[source.rawValue].partial.count >= TaskLog.maxLineBytes {
                streams[source.rawValue].partial.append(UInt8(ascii: "\n"))
                emit(streams[source.rawValue].partial, source)
                streams[source.rawValue].partial = []
            }
            return
        }
        if streams[source.rawValue].partial.isEmpty && newline == bytes.count - 1 { return emit(bytes, source) }
        let lines = streams[source.rawValue].partial + bytes[...newline]
        streams[source.rawValue].partial = Array(bytes[(newline + 1)...])
        emit(lines, source)
    }

    private func emit(_ lines: [UInt8], _ source: Source) {
        append(lines)
        if source == .output { observer?(lines) }
    }

    private func append(_ lines: [UInt8]) {
        let before = buffer.next
        buffer.append(lines)
        figures.lines += Int(buffer.next - before)
        if pending.count + lines.count <= TaskLog.maxPendingBytes {
            pending += lines
            onPending()
        } else {
            figures.unstoredBytes += lines.count
        }
        for follower in followers.values { follower.signal() }
    }

    func follow(_ wakeup: Wakeup) { followers[ObjectIdentifier(wakeup)] = wakeup }
    func unfollow(_ wakeup: Wakeup) { followers[ObjectIdentifier(wakeup)] = nil }
    /// Wakes the followers without a new line: the task has ended.
    func wakeFollowers() { for follower in followers.values { follower.signal() } }

    var hasPending: Bool { !pending.isEmpty || isStoring }

    /// Writes what waits for the file.
    /// - Returns: why it could not; then it waits on.
    func store() async -> SystemError? {
        while !pending.isEmpty {
            let file = file
            let batch = pending.count <= file.limit ? pending : Array(pending.prefix(file.limit))
            pending = pending.count == batch.count ? [] : Array(pending[batch.count...])
            isStoring = true
            defer { isStoring = false }
            let (written, failure) = await lane.run { file.append(batch) }
            guard let failure else { continue }
            pending.insert(contentsOf: batch[written...], at: 0)
            return failure
        }
        return nil
    }

    /// Gives up on what waits for the file.
    func abandonPending() {
        figures.unstoredBytes += pending.count
        pending = []
    }
}
