import Glibc
import Supervision

/// What tests know of the machine.
package enum TestEnvironment {
    package static let variables: [String: String] = {
        var variables: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let pair = String(cString: text)
            if let equals = pair.firstIndex(of: "=") {
                variables[String(pair[..<equals])] = String(pair[pair.index(after: equals)...])
            }
            entry += 1
        }
        return variables
    }()

    /// The built product, which stands beside the tests' own program.
    package static let executable: String = {
        var path = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &path, path.count - 1)
        let program = String(decoding: path.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        var candidates = CommandLine.arguments.map { Files.parent(of: $0) ?? "" } + [Files.parent(of: program) ?? ""]
        candidates += candidates.compactMap { Files.parent(of: $0) }
        return candidates.map { $0 + "/aidevops-worker" }.first(where: Files.isExecutable) ?? "aidevops-worker"
    }()

    /// Runs a program to its end.
    /// - Returns: its standard output, trimmed.
    @discardableResult
    package static func run(_ program: String, _ arguments: [String], in folder: String? = nil) throws -> String {
        var environment = variables
        environment["GIT_CONFIG_GLOBAL"] = "/dev/null"
        for person in ["AUTHOR", "COMMITTER"] {
            environment["GIT_\(person)_NAME"] = "Test"
            environment["GIT_\(person)_EMAIL"] = "test@example.com"
        }
        guard let command = Command(program: program, arguments, environment: environment, directory: folder) else {
            throw TestConnection.Failure(description: "\(program) isn't on PATH")
        }
        let result = try command.run()
        guard result.succeeded else {
            throw TestConnection.Failure(description: "\(program) \(arguments): \(result.status) \(result.errorText)")
        }
        return result.outputText
    }

    /// Waits for something to become so, looking again and again; the only way to wait for other processes' doings.
    package static func eventually(within limit: Duration = .seconds(60), _ condition: () throws -> Bool) rethrows
        -> Bool
    {
        let deadline = ContinuousClock.now + limit
        while ContinuousClock.now < deadline {
            if try condition() { return true }
            poll(nil, 0, 5)
        }
        return try condition()
    }
}
