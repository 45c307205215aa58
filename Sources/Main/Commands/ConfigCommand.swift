import Supervision

extension SubCommand {
    static let config = SubCommand(
        name: "config", operands: "check|show|set KEY VALUE",
        summary: "Check worker.json, show it without its secrets, or change one value.",
        options: [.init("--data-dir", "DIR", "The data folder (default: $AIDEVOPS_DATA_DIR, or ./data).")],
        run: { arguments in
            let action = arguments.operands.first == "set" ? "set" : try arguments.action(["check", "show"])
            let paths = NodePaths(data: Environment.dataFolder(arguments["--data-dir"]))
            let file = ConfigurationFile(path: paths.config + "/worker.json")
            guard Files.exists(file.path) else {
                throw CommandFailure(message: "\(file.path) isn't there: the first `aidevops-worker serve` makes it")
            }
            if action == "check" { return try check(file) }
            if action == "set" { return try set(arguments, in: file) }
            Terminal.out(masked(try file.json()).text)
            return 0
        })

    /// The node notices the change by itself.
    private static func set(_ arguments: Arguments, in file: ConfigurationFile) throws -> Int32 {
        try arguments.requireOperands("set", "KEY", "VALUE")
        let parts = arguments.operands[1].split(separator: ".").map(String.init)
        guard parts.count == 2 else { throw UsageError(message: "KEY is section.name, like worker.max_concurrent") }
        let text = arguments.operands[2]
        do {
            try file.set(parts[0], parts[1], (try? JSONValue(bytes: Array(text.utf8))) ?? .string(text))
        } catch let error as ConfigurationError { throw CommandFailure(message: "nothing was changed: \(error)") }
        return try check(file)
    }

    private static func check(_ file: ConfigurationFile) throws -> Int32 {
        do {
            let configuration = try file.load()
            for key in configuration.unknownKeys { Terminal.out("\(key) means nothing to this version\n") }
            if configuration.authToken.isEmpty {
                Terminal.out("dispatch.auth_token is empty: every authenticated request is refused\n")
            }
            Terminal.out("\(file.path) is valid\n")
            return 0
        } catch let error as ConfigurationError {
            for problem in error.problems { Terminal.out("\(problem)\n") }
            Terminal.error("\(file.path) is not valid")
            return 1
        }
    }

    /// Strings under names that look like those of secrets are blanked, wherever they are.
    private static func masked(_ json: JSONValue) -> JSONValue {
        switch json {
        case .object(let object):
            .object(
                Dictionary(
                    uniqueKeysWithValues: object.map { name, value in
                        let isSecret = !Configuration.secrets(in: [name: "x"]).isEmpty
                        if isSecret, case .string(let text) = value {
                            return (name, .string(text.isEmpty ? "" : "***"))
                        }
                        return (name, masked(value))
                    }))
        case .array(let array): .array(array.map(masked))
        case .null, .bool, .integer, .number, .string: json
        }
    }
}
