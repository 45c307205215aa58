/// Replaces every known secret in a stream of bytes by `***`, however the stream is cut into pieces.
///
/// It finds a secret as it is, in base64 at each alignment, URL-encoded and JSON-escaped, and also when line breaks stand
/// within it (base64 programs and terminals wrap). An Aho-Corasick automaton passes over each byte once; line breaks leave
/// its state alone and are kept in the output, so that lines stay lines.
package struct Redactor: Sendable {
    /// The automaton of a set of secrets, shared by all streams.
    package let secrets: SecretSet
    private var state = 0
    /// What may be the beginning of a secret: not let out before it's known.
    private var held: [UInt8] = []

    /// Fewer bytes of a possible secret than these don't hold a stream back; they tell nothing.
    private static let leastHeldBytes = 4
    private static let mask = Array("***".utf8)

    package init(_ secrets: SecretSet) { self.secrets = secrets }

    package var isHolding: Bool { !held.isEmpty }

    /// The redacted form of what can be let out now.
    package mutating func redact(_ bytes: [UInt8]) -> [UInt8] {
        guard secrets.longest > 0 else { return bytes }
        let buffer = held.isEmpty ? bytes : held + bytes
        let matches = scan(buffer, from: held.count)
        held = []
        let heldStart = startOfHeld(in: buffer, after: matches.last?.upperBound ?? 0)
        if heldStart < buffer.count { held = Array(buffer[heldStart...]) }
        if matches.isEmpty { return heldStart == buffer.count ? buffer : Array(buffer[..<heldStart]) }
        return Redactor.replace(matches, in: buffer[..<heldStart])
    }

    /// Lets out what is held: the stream has ended, or has been silent for long.
    package mutating func flush() -> [UInt8] {
        defer { held = [] }
        return held
    }

    /// The ranges of the secrets that end in `buffer` behind `start`, in order and apart.
    private mutating func scan(_ buffer: [UInt8], from start: Int) -> [Range<Int>] {
        var found: [Range<Int>] = []
        var state = self.state
        unsafe buffer.withUnsafeBufferPointer { buffer in
            unsafe secrets.withTables { tables in
                for index in start..<buffer.count {
                    let column = unsafe Int(tables.columns[Int(buffer[index])])
                    if column == SecretSet.transparent { continue }
                    state = unsafe Int(tables.next[state &* tables.width &+ column])
                    let length = unsafe Int(tables.matched[state])
                    if length == 0 { continue }
                    var first = index
                    var left = length
                    while true {
                        if unsafe Int(tables.columns[Int(buffer[first])]) != SecretSet.transparent { left -= 1 }
                        if left == 0 || first == 0 { break }
                        first -= 1
                    }
                    if let last = found.last, first <= last.upperBound {
                        found[found.count - 1] = min(first, last.lowerBound)..<(index + 1)
                    } else {
                        found.append(first..<(index + 1))
                    }
                }
            }
        }
        self.state = state
        return found
    }

    private func startOfHeld(in buffer: [UInt8], after end: Int) -> Int {
        let depth = secrets.depth(of: state)
        guard depth >= Redactor.leastHeldBytes else { return buffer.count }
        var start = buffer.count
        var left = depth
        while start > end, left > 0 {
            start -= 1
            if !SecretSet.isLineBreak(buffer[start]) { left -= 1 }
        }
        // Blank lines without end within a secret's beginning aren't one that was wrapped.
        return buffer.count - start > 2 * secrets.longest + 64 ? buffer.count : start
    }

    private static func replace(_ matches: [Range<Int>], in buffer: ArraySlice<UInt8>) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(buffer.count)
        var at = 0
        for match in matches {
            output.append(contentsOf: buffer[at..<match.lowerBound])
            output.append(contentsOf: mask)
            output.append(contentsOf: buffer[match].lazy.filter(SecretSet.isLineBreak))
            at = match.upperBound
        }
        output.append(contentsOf: buffer[at...])
        return output
    }
}
