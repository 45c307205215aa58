import Glibc

/// Writes to the terminal or wherever the streams go.
enum Terminal {
    static func out(_ text: String) { write(text, to: STDOUT_FILENO) }
    static func error(_ text: String) { write("aidevops-worker: \(text)\n", to: STDERR_FILENO) }
    /// A word on how things go, for people only.
    static func progress(_ text: String) { if isErrorTerminal { write(text, to: STDERR_FILENO) } }

    static let isTerminal = isatty(STDOUT_FILENO) == 1
    static let isErrorTerminal = isatty(STDERR_FILENO) == 1
    /// By https://no-color.org.
    private static let hasColour =
        isTerminal && Environment.variables["NO_COLOR"]?.isEmpty ?? true && Environment.variables["TERM"] != "dumb"

    enum Style: Int {
        case bold = 1, dim = 2, red = 31, green = 32, yellow = 33, blue = 34
    }

    static func styled(_ text: String, _ style: Style) -> String {
        hasColour ? "\u{1b}[\(style.rawValue)m\(text)\u{1b}[0m" : text
    }

    /// What others wrote, without control characters when it goes to a terminal: they could move its cursor, change its
    /// title, or hide what is there.
    static func foreign(_ text: String) -> String { isTerminal ? harmless(text) : text }

    static func harmless(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x09, 0x0a: result.unicodeScalars.append(scalar)
            case 0..<0x20: result.unicodeScalars.append(UnicodeScalar(0x2400 + scalar.value) ?? " ")
            case 0x7f..<0xa0, 0x200e, 0x200f, 0x202a...0x202e, 0x2066...0x2069: result += "\u{fffd}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// Rows under their heads, the columns as wide as they need; nothing but the last column is padded.
    static func table(_ heads: [String], _ rows: [[String]]) -> String {
        let cells = [heads] + rows.map { $0.map { harmless($0).replacing("\n", with: " ") } }
        let widths = heads.indices.map { column in cells.map { $0[column].count }.max() ?? 0 }
        return cells.enumerated().map { index, row in
            let line = row.enumerated().map { column, cell in
                column == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[column] - cell.count)
            }.joined(separator: "  ")
            return (index == 0 ? styled(line, .bold) : line) + "\n"
        }.joined()
    }

    private static func write(_ text: String, to descriptor: Int32) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno != EINTR { return }
            rest = rest.dropFirst(max(0, count))
        }
    }
}
