import CSystem
import Dispatch
import Supervision
import Synchronization

extension SubCommand {
    private static let actions = ["list", "check", "add", "remove"]

    static let hosts = SubCommand(
        name: "hosts", operands: "list|check|add NAME URL|remove NAME",
        summary: "Manage the nodes of remote-hosts.json, the supervisor's list.",
        options: [
            .init("--token-file", "FILE", "With add: where the node's token is, or - for standard input."),
            .init("--json", nil, "Print JSON."),
        ],
        run: { arguments in
            guard let action = arguments.operands.first else {
                throw UsageError(message: "\(actions.joined(separator: ", ")) is missing")
            }
            switch action {
            case "list":
                try arguments.requireOperands("list")
                let rows = try RemoteHosts().all
                if arguments.has("--json") { return print(rows.map(json)) }
                Terminal.out(
                    Terminal.table(
                        ["NAME", "ADDRESS", "TRANSPORT", "ADDED"],
                        rows.map {
                            [
                                $0.name, $0.address, $0.isOurs ? $0.transport : "\($0.transport) (not spoken here)",
                                $0.added,
                            ]
                        }))
                return 0
            case "check":
                try arguments.requireOperands("check")
                return try check(asJSON: arguments.has("--json"))
            case "add":
                try arguments.requireOperands("add", "NAME", "URL")
                return try add(arguments)
            case "remove":
                try arguments.requireOperands("remove", "NAME")
                var hosts = try RemoteHosts()
                try hosts.remove(arguments.operands[1])
                return 0
            default: throw UsageError(message: Arguments.unknown("action", action, among: actions))
            }
        })

    private static func print(_ values: [JSONValue]) -> Int32 {
        Terminal.out(JSONValue.array(values).text)
        return 0
    }

    private static func json(_ host: RemoteHosts.Host) -> JSONValue {
        .object([
            "name": .string(host.name), "address": .string(host.address), "transport": .string(host.transport),
            "added": .string(host.added),
        ])
    }

    private static func add(_ arguments: Arguments) throws -> Int32 {
        let (name, url) = (arguments.operands[1], arguments.operands[2])
        guard RemoteHosts.isName(name) else {
            throw UsageError(message: "NAME may have letters, digits, - and _, and begins with a letter or a digit")
        }
        guard url.hasPrefix("http://") || url.hasPrefix("https://") else {
            throw UsageError(message: "URL must begin with http:// or https://")
        }
        // Never an argument: those are shown to everybody by ps.
        guard let file = arguments["--token-file"] else {
            throw UsageError(
                message: "--token-file is missing: the file with the node's token, or - for standard input")
        }
        let bytes = try Files.read(file == "-" ? "/dev/stdin" : file, limit: 4096)
        var hosts = try RemoteHosts()
        try hosts.add(name, url: url, token: String(decoding: bytes, as: UTF8.self).trimmed)
        return 0
    }

    /// How a node answered.
    private struct Health {
        var host: RemoteHosts.Host
        var problem: String?
        var version = ""
        var available = 0
        var slots = 0
        var milliseconds = 0.0
    }

    private static func check(asJSON: Bool) throws -> Int32 {
        let hosts = try RemoteHosts().all
        let found = Mutex([Int: Health]())
        DispatchQueue.concurrentPerform(iterations: hosts.count) { index in
            let health = ask(hosts[index])
            found.withLock { $0[index] = health }
        }
        let all = found.withLock { found in hosts.indices.compactMap { found[$0] } }
        if asJSON {
            _ = print(
                all.map { health in
                    var value = json(health.host)
                    value["reachable"] = .bool(health.problem == nil)
                    value["problem"] = health.problem.map { .string($0) }
                    value["version"] = .string(health.version)
                    value["slots"] = .integer(health.slots)
                    value["available"] = .integer(health.available)
                    value["latency_ms"] = .number(health.milliseconds)
                    return value
                })
        } else {
            let rows = all.map { health in
                [
                    health.host.name, health.problem == nil ? "yes" : "no", health.version,
                    "\(health.available) of \(health.slots)", "\(Int(health.milliseconds)) ms", health.problem ?? "",
                ]
            }
            Terminal.out(Terminal.table(["NAME", "REACHABLE", "VERSION", "FREE SLOTS", "LATENCY", "PROBLEM"], rows))
        }
        return all.allSatisfy { $0.problem == nil } ? 0 : 1
    }

    /// Asks for what needs no token, and whether the token is the node's.
    private static func ask(_ host: RemoteHosts.Host) -> Health {
        var health = Health(host: host)
        guard host.isOurs else {
            health.problem = "\(host.transport) isn't spoken here"
            return health
        }
        let began = cs_monotonic_ns()
        do {
            let status = try host.client.get("/status").json()
            health.milliseconds = Double(cs_monotonic_ns() - began) / 1e6
            health.version = status["version"]?.string ?? ""
            health.slots = status["workers"]?["max"]?.integer ?? 0
            health.available = status["workers"]?["available"]?.integer ?? 0
            let answer = try host.client.get("/workers")
            if answer.status != 200 { health.problem = answer.message }
        } catch let error as NodeClient.Unreachable {
            health.problem = error.message
        } catch let error as CommandFailure {
            health.problem = error.message
        } catch { health.problem = "\(error)" }
        return health
    }
}
