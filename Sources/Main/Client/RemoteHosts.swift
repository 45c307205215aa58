import FoundationEssentials
import Supervision

/// The supervisor's list of nodes, `remote-hosts.json`. What isn't ours in it is kept as it is.
struct RemoteHosts {
    struct Host: Sendable {
        var name: String
        var address: String
        var transport: String
        var token: String
        var added: String

        /// Other transports (ssh is the default there) aren't spoken here.
        var isOurs: Bool { transport == "http" || transport == "https" }
        var url: String { address.contains("://") ? address : "\(transport)://\(address)" }
        var client: NodeClient { NodeClient(url: url, token: token) }
    }

    let path: String
    private var json: JSONValue

    private static let maxBytes = 1 << 20

    static var defaultPath: String {
        let folder = Environment.variables["XDG_CONFIG_HOME"].flatMap { $0.isEmpty ? nil : $0 }
        return (folder ?? Environment.home + "/.config") + "/aidevops/remote-hosts.json"
    }

    /// Reads the file; without one there are no hosts.
    init(path: String = RemoteHosts.defaultPath) throws {
        self.path = path
        json = .object(["hosts": .object([:])])
        guard Files.exists(path) else { return }
        do {
            json = try JSONValue(bytes: Files.read(path, limit: RemoteHosts.maxBytes))
        } catch { throw CommandFailure(message: "\(path) can't be read: it must be a JSON object with hosts") }
    }

    var all: [Host] {
        (json["hosts"]?.object ?? [:]).sorted { $0.key < $1.key }.map { name, host in
            Host(
                name: name, address: host["address"]?.string ?? "", transport: host["transport"]?.string ?? "ssh",
                token: host["auth_token"]?.string ?? "", added: host["added"]?.string ?? "")
        }
    }

    func named(_ name: String) throws -> Host {
        guard let host = all.first(where: { $0.name == name }) else {
            throw CommandFailure(message: Arguments.unknown("host", name, among: all.map(\.name)) + " in \(path)")
        }
        guard host.isOurs else {
            throw CommandFailure(
                message: "the host \(name) is reached over \(host.transport); only http and https are spoken here")
        }
        return host
    }

    static func isName(_ name: String) -> Bool {
        guard let first = name.utf8.first, first != UInt8(ascii: "-"), first != UInt8(ascii: "_") else { return false }
        return name.utf8.allSatisfy { byte in
            Character(UnicodeScalar(byte)).isLetter && byte < 0x80 || (0x30...0x39).contains(byte) || byte == 0x2d
                || byte == 0x5f
        }
    }

    mutating func add(_ name: String, url: String, token: String) throws {
        var hosts = json["hosts"] ?? .object([:])
        var host = hosts[name] ?? .object([:])
        let parts = url.split(separator: "://", maxSplits: 1).map(String.init)
        host["address"] = .string(parts.last ?? url)
        host["transport"] = .string(parts.count == 2 ? parts[0] : "http")
        host["auth_token"] = .string(token)
        host["added"] = .string(Date().formatted(.iso8601))
        hosts[name] = host
        json["hosts"] = hosts
        try save()
    }

    mutating func remove(_ name: String) throws {
        guard case .object(var hosts) = json["hosts"], hosts.removeValue(forKey: name) != nil else {
            throw CommandFailure(message: Arguments.unknown("host", name, among: all.map(\.name)) + " in \(path)")
        }
        json["hosts"] = .object(hosts)
        try save()
    }

    /// It holds tokens: for this user's eyes alone.
    private func save() throws {
        if let folder = Files.parent(of: path) { try Files.makeFolders(folder) }
        try Files.replace(path, with: Array(json.text.utf8))
    }
}
