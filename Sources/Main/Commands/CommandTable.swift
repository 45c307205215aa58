/// One command of the program.
struct SubCommand: Sendable {
    let name: String
    /// Its operands, for the help.
    var operands = ""
    let summary: String
    var options: [Arguments.Option] = []
    /// - Returns: the exit code.
    let run: @Sendable (Arguments) throws -> Int32

    static let all: [SubCommand] = [
        serve, demo, dispatch, ps, logs, cancel, changes, status, hosts, pulse, config, token, doctor, completions,
    ]

    var usage: String {
        "aidevops-worker \(name)" + (options.isEmpty ? "" : " [OPTIONS]") + (operands.isEmpty ? "" : " \(operands)")
    }

    var help: String {
        let lines = (options + [Arguments.Option("--help", nil, "Show this help.")]).map { option in
            let left = "  \(option.short.map { $0 + ", " } ?? "")\(option.name)\(option.value.map { " \($0)" } ?? "")"
            return left + String(repeating: " ", count: max(2, 26 - left.count)) + option.help
        }
        return "\(summary)\n\nUsage: \(usage)\n\nOptions:\n\(lines.joined(separator: "\n"))\n"
    }

    static var overview: String {
        let lines = all.map { "  \($0.name)" + String(repeating: " ", count: max(2, 14 - $0.name.count)) + $0.summary }
        return """
            aidevops-worker \(Version.current): a remote worker node for AI coding agents

            Usage: aidevops-worker COMMAND [OPTIONS]

            Commands:
            \(lines.joined(separator: "\n"))

            aidevops-worker COMMAND --help tells more of a command; --version tells the version.

            """
    }
}

enum Version {
    static let current = "0.1.0"
}
