import FoundationEssentials
import Glibc
import Supervision

/// worker.json on disk.
struct ConfigurationFile {
    let path: String

    private static let maxBytes = 1 << 20

    /// What the first run made.
    enum Origin: Equatable {
        case existing
        /// The file, or the token in it, is new; with the token.
        case madeToken(String)
    }

    /// Reads the file; makes it, or the token that it lacks, where it isn't there.
    /// - Throws: `ConfigurationError`, or `SystemError` of the file.
    @available(*, noasync)
    func loadOrMake() throws -> (Configuration, Origin) {
        var json = Files.exists(path) ? try self.json() : ConfigurationFile.initial
        // A restored backup comes with other modes, and this holds the token.
        if Files.exists(path), !Files.isSymbolicLink(path) { unsafe chmod(path, 0o600) }
        guard json["dispatch"]?["auth_token"] == nil else { return (try Configuration(json), .existing) }
        var dispatch = json["dispatch"] ?? .object([:])
        let token = ConfigurationFile.randomToken()
        dispatch["auth_token"] = .string(token)
        json["dispatch"] = dispatch
        let configuration = try Configuration(json)
        try write(json)
        return (configuration, .madeToken(token))
    }

    /// Reads the file as it is.
    @available(*, noasync)
    func load() throws -> Configuration { try Configuration(json()) }

    /// Its content, whatever it says.
    @available(*, noasync)
    func json() throws -> JSONValue { try parse(Files.read(path, limit: ConfigurationFile.maxBytes)) }

    /// Changes one value, and keeps all others, known or not.
    @available(*, noasync)
    func set(_ section: String, _ key: String, _ value: JSONValue) throws {
        var json = try self.json()
        var object = json[section] ?? .object([:])
        object[key] = value
        json[section] = object
        _ = try Configuration(json)
        try write(json)
    }

    private func parse(_ bytes: [UInt8]) throws(ConfigurationError) -> JSONValue {
        do {
            return try JSONDecoder().decode(JSONValue.self, from: Data(bytes))
        } catch {
            throw ConfigurationError(problems: ["\(path) isn't valid JSON\(ConfigurationFile.place(of: error))"])
        }
    }

    private static func place(of error: any Error) -> String {
        guard case DecodingError.dataCorrupted(let context) = error, let cause = context.underlyingError else {
            return ""
        }
        return ": \(cause)"
    }

    private func write(_ json: JSONValue) throws {
        try Files.replace(path, with: Array(json.text.utf8))
        if let folder = Files.parent(of: path) { try Files.syncFolder(folder) }
    }

    static func randomToken() -> String { Names.randomHex(digits: 64) }

    /// What the first run writes: the fields that people set, with their defaults.
    private static let initial: JSONValue = .object([
        "worker": .object([
            "max_concurrent": .integer(2), "ram_per_worker_mb": .integer(256), "idle_timeout_minutes": .integer(30),
            "model": .string(NodeSettings().defaultModel),
        ]),
        "dispatch": .object(["allowed_repos": .array([]), "auto_accept": .bool(false)]),
        "pulse": .object(["enabled": .bool(false), "interval_seconds": .integer(120)]),
        "agent": .object(["preset": .string("opencode"), "command": .array([]), "env": .object([:])]),
        "git": .object(["base_url": .string(NodeSettings().gitBaseURL)]),
    ])
}
