import FoundationEssentials
import Glibc

/// The node's own log: one line an event, on standard output, as text for people or JSON for programs.
package struct NodeLog: Sendable {
    package enum Format: String, Sendable, CaseIterable { case text, json }
    package enum Level: String, Sendable, CaseIterable, Comparable {
        case debug, info, warning, error

        package static func < (left: Level, right: Level) -> Bool {
            (allCases.firstIndex(of: left) ?? 0) < (allCases.firstIndex(of: right) ?? 0)
        }
    }

    package var format: Format
    package var level: Level
    private let descriptor: Int32

    package init(format: Format = .text, level: Level = .info, descriptor: Int32 = STDOUT_FILENO) {
        self.format = format
        self.level = level
        self.descriptor = descriptor
    }

    package func debug(_ message: StaticString, _ fields: KeyValuePairs<String, String> = [:]) {
        write(.debug, message, fields)
    }
    package func info(_ message: StaticString, _ fields: KeyValuePairs<String, String> = [:]) {
        write(.info, message, fields)
    }
    package func warning(_ message: StaticString, _ fields: KeyValuePairs<String, String> = [:]) {
        write(.warning, message, fields)
    }
    package func error(_ message: StaticString, _ fields: KeyValuePairs<String, String> = [:]) {
        write(.error, message, fields)
    }

    private func write(_ level: Level, _ message: StaticString, _ fields: KeyValuePairs<String, String>) {
        guard level >= self.level else { return }
        let time = Date().formatted(.iso8601)
        let line: String
        switch format {
        case .text:
            let pairs = fields.map { " \($0.key)=\(NodeLog.quoted($0.value))" }.joined()
            line = "\(time) \(level.rawValue) \(message)\(pairs)\n"
        case .json:
            let all =
                [("time", time), ("level", level.rawValue), ("message", "\(message)")]
                + fields.map { ($0.key, $0.value) }
            line = "{" + all.map { "\(NodeLog.json($0.0)):\(NodeLog.json($0.1))" }.joined(separator: ",") + "}\n"
        }
        // One write for a line, so that lines of several threads don't mix; a reader that doesn't read loses lines.
        let bytes = Array(line.utf8)
        _ = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
    }

    /// As it is where it's one plain word, else in quotes.
    private static func quoted(_ text: String) -> String {
        let isPlain =
            !text.isEmpty
            && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "=") }
        return isPlain ? text : json(text)
    }

    private static func json(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
