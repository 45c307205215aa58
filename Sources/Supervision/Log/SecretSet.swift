/// The forms of the known secrets, as the tables of an Aho-Corasick automaton (Aho and Corasick, CACM 18(6), 1975).
package final class SecretSet: Sendable {
    /// Shorter values aren't taken for secrets: they would blank ordinary words.
    package static let shortestSecret = 8
    /// The column of bytes that leave the state alone.
    static let transparent = 0
    /// The column of bytes that no secret has.
    private static let foreign = 1

    private let columns: [UInt16]
    private let width: Int
    private let next: [Int32]
    private let matched: [Int32]
    private let depths: [Int32]
    /// Bytes of the longest form; 0 when there is no secret.
    package let longest: Int

    package static let empty = SecretSet([])

    package init(_ secrets: some Sequence<String>) {
        let forms = Set(secrets.flatMap { SecretSet.forms(of: Array($0.utf8)) })
        longest = forms.map(\.count).max() ?? 0
        var columns = [UInt16](repeating: UInt16(SecretSet.foreign), count: 256)
        for byte in [UInt8(ascii: "\n"), UInt8(ascii: "\r")] { columns[Int(byte)] = UInt16(SecretSet.transparent) }
        var width = 2
        for byte in Set(forms.joined()).sorted() where !SecretSet.isLineBreak(byte) {
            columns[Int(byte)] = UInt16(width)
            width += 1
        }
        var automaton = Automaton(width: width)
        for form in forms.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            automaton.insert(form.map { Int(columns[Int($0)]) })
        }
        automaton.close()
        self.columns = columns
        self.width = width
        next = automaton.next
        matched = automaton.matched
        depths = automaton.depths
    }

    /// The tables without bounds checks, for the one loop that sees every byte: bytes index `columns`, and the states in
    /// `next` index both others, by construction.
    @unsafe struct Tables {
        let columns: UnsafePointer<UInt16>
        let next: UnsafePointer<Int32>
        let matched: UnsafePointer<Int32>
        let width: Int
    }

    func withTables(_ body: (Tables) -> Void) {
        unsafe columns.withUnsafeBufferPointer { columns in
            unsafe next.withUnsafeBufferPointer { next in
                unsafe matched.withUnsafeBufferPointer { matched in
                    guard let columns = columns.baseAddress, let next = next.baseAddress,
                        let matched = matched.baseAddress
                    else { return }  // none of them is ever empty
                    unsafe body(Tables(columns: columns, next: next, matched: matched, width: width))
                }
            }
        }
    }

    /// How many bytes of a form have been seen in this state.
    func depth(of state: Int) -> Int { Int(depths[state]) }

    static func isLineBreak(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") }
}

// MARK: - Forms

extension SecretSet {
    /// The forms to look for; a secret of many lines (a private key) is looked for line by line.
    static func forms(of secret: [UInt8]) -> [[UInt8]] {
        let lines = secret.split(whereSeparator: isLineBreak).map(Array.init)
        return lines.filter { $0.count >= shortestSecret }.flatMap { line -> [[UInt8]] in
            let encoded = (0..<3).flatMap { base64(line, offset: $0) }
            return [line, urlEncoded(line), jsonEscaped(line)] + encoded
        }.filter { $0.count >= shortestSecret }
    }

    /// The digits of base64 that `secret` alone decides when it stands `offset` bytes (modulo 3) behind the start of the
    /// encoded data, in both alphabets.
    private static func base64(_ secret: [UInt8], offset: Int) -> [[UInt8]] {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)
        let bytes = [UInt8](repeating: 0, count: offset) + secret
        let decided = ((8 * offset + 5) / 6)..<(8 * bytes.count / 6)
        return [Array("+/".utf8), Array("-_".utf8)].map { last in
            decided.map { digit in
                let bit = 6 * digit
                let pair = UInt16(bytes[bit / 8]) << 8 | (bit / 8 + 1 < bytes.count ? UInt16(bytes[bit / 8 + 1]) : 0)
                return (alphabet + last)[Int(pair >> UInt16(10 - bit % 8)) & 63]
            }
        }
    }

    private static func urlEncoded(_ secret: [UInt8]) -> [UInt8] {
        let unreserved = Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~".utf8)
        let digits = Array("0123456789ABCDEF".utf8)
        return secret.flatMap { byte in
            unreserved.contains(byte) ? [byte] : [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
    }

    private static func jsonEscaped(_ secret: [UInt8]) -> [UInt8] {
        let escaped = Set("\"\\/".utf8)
        return secret.flatMap { escaped.contains($0) ? [UInt8(ascii: "\\"), $0] : [$0] }
    }
}

/// A trie of words that is closed into a deterministic automaton.
private struct Automaton {
    let width: Int
    var next: [Int32]
    /// The length of the longest word that ends in a state, or 0.
    var matched: [Int32] = [0]
    var depths: [Int32] = [0]

    init(width: Int) {
        self.width = width
        next = [Int32](repeating: -1, count: width)
    }

    mutating func insert(_ word: [Int]) {
        var state = 0
        for column in word {
            let edge = state * width + column
            if next[edge] < 0 {
                next[edge] = Int32(matched.count)
                next.append(contentsOf: repeatElement(-1, count: width))
                matched.append(0)
                depths.append(depths[state] + 1)
            }
            state = Int(next[edge])
        }
        matched[state] = Int32(word.count)
    }

    /// Fills in the missing edges from the longest proper suffix of each state, breadth first.
    mutating func close() {
        var suffix = [Int](repeating: 0, count: matched.count)
        var queue = [0]
        var at = 0
        while at < queue.count {
            let state = queue[at]
            at += 1
            for column in 0..<width {
                let edge = state * width + column
                let inherited = state == 0 ? 0 : Int(next[suffix[state] * width + column])
                if next[edge] < 0 {
                    next[edge] = Int32(inherited)
                } else {
                    let child = Int(next[edge])
                    suffix[child] = inherited
                    matched[child] = max(matched[child], matched[inherited])
                    queue.append(child)
                }
            }
        }
    }
}
