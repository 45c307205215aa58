/// The newest lines of a log, numbered from 1 on, bounded in lines and in bytes.
package struct LogBuffer: Sendable {
    package static let maxLines = 500
    package static let maxBytes = 1 << 20

    /// A run of consecutive lines.
    package struct Lines: Sendable, Equatable {
        /// The number of the first line; when there is none, of the next one to come.
        package var first: UInt64
        /// Each with its newline.
        package var bytes: [UInt8]
        package var count: Int
        /// Lines after the asked-for place that are no longer here.
        package var missed: UInt64 = 0

        package init(first: UInt64, bytes: [UInt8], count: Int, missed: UInt64 = 0) {
            self.first = first
            self.bytes = bytes
            self.count = count
            self.missed = missed
        }
    }

    private let lineLimit: Int
    private let byteLimit: Int
    private var bytes: [UInt8] = []
    /// Where in `bytes` the kept part begins.
    private var start = 0
    /// Behind the newline of each kept line, counted from the beginning of the log.
    private var ends: [Int] = []
    private var firstEnd = 0
    /// Bytes of the log that stood before `bytes[0]`.
    private var dropped = 0
    /// The number that the next line gets.
    package private(set) var next: UInt64

    package init(lineLimit: Int = LogBuffer.maxLines, byteLimit: Int = LogBuffer.maxBytes, next: UInt64 = 1) {
        self.lineLimit = lineLimit
        self.byteLimit = byteLimit
        self.next = next
    }

    package var count: Int { ends.count - firstEnd }
    /// The number of the oldest line that is kept.
    package var first: UInt64 { next - UInt64(count) }
    package var byteCount: Int { bytes.count - start }

    /// Appends whole lines, each with its newline.
    package mutating func append(_ lines: [UInt8]) {
        let offset = dropped + bytes.count
        bytes.append(contentsOf: lines)
        for end in LineEnds(lines) {
            ends.append(offset + end + 1)
            next += 1
        }
        shrink()
    }

    /// The lines behind number `sequence` (0: from the oldest), at most `limit` of them, the oldest first.
    package func lines(after sequence: UInt64, limit: Int = .max) -> Lines {
        let wanted = min(sequence, next - 1) + 1
        let from = max(wanted, first)
        let count = min(Int(next - from), limit)
        let index = firstEnd + Int(from - first)
        return Lines(
            first: from, bytes: Array(bytes[position(before: index)..<position(before: index + count)]), count: count,
            missed: from - wanted)
    }

    /// The newest `limit` lines.
    package func last(_ limit: Int) -> Lines { lines(after: next - 1 - UInt64(min(count, max(0, limit)))) }

    private func position(before index: Int) -> Int {
        index == firstEnd ? start : ends[index - 1] - dropped
    }

    private mutating func shrink() {
        while count > lineLimit || (byteCount > byteLimit && count > 1) {
            start = ends[firstEnd] - dropped
            firstEnd += 1
        }
        // Moving the kept part costs no more than what was appended since the last time.
        if start > max(64 * 1024, byteCount) {
            bytes.removeFirst(start)
            dropped += start
            start = 0
        }
        if firstEnd > max(1024, count) {
            ends.removeFirst(firstEnd)
            firstEnd = 0
        }
    }
}
