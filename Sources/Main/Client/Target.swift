import Supervision

/// The node that a command speaks to.
struct Target: Sendable {
    var name: String
    var client: NodeClient

    static let options: [Arguments.Option] = [
        .init("--host", "NAME", "A node of remote-hosts.json (default: the node on this machine)."),
        .init("--url", "URL", "A node's address; its token comes from AIDEVOPS_WORKER_TOKEN."),
        .init("--data-dir", "DIR", "The data folder of the node on this machine, for its token."),
        .init("--json", nil, "Print the node's own JSON."),
    ]

    /// What the options name, or the node on this machine.
    init(_ arguments: Arguments) throws {
        if arguments.has("--host"), arguments.has("--url") {
            throw UsageError(message: "--host and --url name two nodes: give one")
        }
        if let name = arguments["--host"] {
            self.init(name: name, client: try RemoteHosts().named(name).client)
        } else if let url = arguments["--url"] {
            guard url.hasPrefix("http://") || url.hasPrefix("https://") else {
                throw UsageError(message: "--url takes an http or https URL, not \(url)")
            }
            self.init(name: url, client: NodeClient(url: url, token: try Target.token(arguments, isLocal: false)))
        } else {
            self = try Target.local(arguments)
        }
    }

    init(name: String, client: NodeClient) {
        self.name = name
        self.client = client
    }

    static func local(_ arguments: Arguments) throws -> Target {
        Target(name: "local", client: NodeClient(url: localURL, token: try token(arguments)))
    }

    /// Where the node on this machine answers.
    static var localURL: String {
        let port = Environment.variables["PORT"] ?? "3000"
        return Environment.variables["AIDEVOPS_WORKER_URL"] ?? "http://127.0.0.1:\(port)"
    }

    /// From the environment, or from worker.json where this user may read it; a node that needs none is asked without. The
    /// token of the node on this machine goes to no other unless its folder is named.
    private static func token(_ arguments: Arguments, isLocal: Bool = true) throws -> String {
        if let token = Environment.variables["AIDEVOPS_WORKER_TOKEN"] { return token }
        guard isLocal || arguments.has("--data-dir") else { return "" }
        let paths = NodePaths(data: Environment.dataFolder(arguments["--data-dir"]))
        let file = ConfigurationFile(path: paths.config + "/worker.json")
        guard Files.exists(file.path) else {
            if arguments.has("--data-dir") { throw CommandFailure(message: "\(file.path) isn't there") }
            return ""
        }
        return try file.load().authToken
    }

    func get(_ path: String) throws -> JSONValue { try answer("GET", path).json() }

    /// - Throws: `CommandFailure` when nobody answers.
    func answer(_ method: String, _ path: String, json: [UInt8]? = nil) throws -> NodeClient.Answer {
        do {
            return try client.request(method, path, json: json)
        } catch let error as NodeClient.Unreachable { throw CommandFailure(message: error.message) }
    }
}
