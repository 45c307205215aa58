import Server
import Supervision

/// The content of worker.json, checked.
struct Configuration: Sendable, Equatable {
    var node = NodeSettings()
    var authToken = ""
    var trustedProxies: [String] = []
    var pulse = PulseSettings()
    var pulseUsesRemoteHosts = true
    /// Keys that mean nothing to this version.
    var unknownKeys: [String] = []

    /// Reads a configuration.
    /// - Throws: `ConfigurationError` with all that is wrong with it.
    init(_ json: JSONValue) throws(ConfigurationError) {
        var reader = ConfigurationReader(json)
        readWorker(&reader)
        readDispatch(&reader)
        readAgent(&reader)
        readSandbox(&reader)
        node.gitBaseURL = reader.string("git.base_url", node.gitBaseURL) { Configuration.problem(baseURL: $0) }
        node.sshKey = reader.choice("git.ssh_key", node.sshKey)
        readPulse(&reader)
        node.logFileLimit = reader.integer("logs.max_file_mb", 10, 1...10_000) << 20
        node.worktreeRetention = .seconds(reader.integer("retention.worktree_hours", 24, 0...87_600) * 3600)
        node.recordRetention = .seconds(reader.integer("retention.days", 30, 1...3650) * 86_400)
        node.noticeURL = reader.string("notify.url", "") { $0.isEmpty ? nil : Names.problem(callbackURL: $0) }
        node.noticeSecret = reader.string("notify.secret", "") { secret in
            secret.isEmpty || secret.utf8.count >= 16 ? nil : "must be empty or at least 16 bytes long"
        }
        node.callbackHosts = reader.strings("notify.allowed_hosts") { _ in nil }
        trustedProxies = reader.strings("server.trusted_proxies") { _ in nil }
        unknownKeys = try reader.finish()
        node.secrets =
            [authToken, node.noticeSecret].filter { !$0.isEmpty } + Configuration.secrets(in: node.agentEnvironment)
    }

    private mutating func readWorker(_ reader: inout ConfigurationReader) {
        node.maxConcurrent = reader.integer("worker.max_concurrent", 2, 1...1000)
        node.memoryPerWorkerMB = reader.integer("worker.ram_per_worker_mb", 256, 0...1_000_000)
        node.memoryReserveMB = reader.integer("worker.memory_reserve_mb", 0, 0...1_000_000)
        node.idleTimeout = reader.minutes("worker.idle_timeout_minutes", 30)
        node.maxRuntime = reader.minutes("worker.max_runtime_minutes", 0)
        node.cancelGrace = .seconds(reader.integer("worker.cancel_grace_seconds", 10, 0...600))
        node.maxContinuations = reader.integer("worker.max_continuations", 2, 0...20)
        node.defaultModel = reader.string("worker.model", node.defaultModel, Names.problem(model:))
        let defaults = RestartPolicy()
        node.restart.policy = reader.choice("worker.restart.policy", defaults.policy)
        node.restart.maxRestarts = reader.integer("worker.restart.max_restarts", defaults.maxRestarts, 0...1000)
        node.restart.windowSeconds = reader.integer(
            "worker.restart.window_seconds", defaults.windowSeconds, 1...31_536_000)
        node.restart.backoffSeconds = reader.integer(
            "worker.restart.backoff_seconds", defaults.backoffSeconds, 0...86_400)
        node.restart.backoffMaxSeconds = reader.integer(
            "worker.restart.backoff_max_seconds", defaults.backoffMaxSeconds, 0...604_800)
    }

    private mutating func readDispatch(_ reader: inout ConfigurationReader) {
        authToken = reader.string("dispatch.auth_token", "") { token in
            if token.isEmpty { return nil }
            let isPlain = token.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7f }
            return (16...256).contains(token.utf8.count) && isPlain
                ? nil : "must be empty or 16 to 256 bytes long, without white space"
        }
        node.allowedRepos = reader.strings("dispatch.allowed_repos", Names.problem(repo:))
        node.autoAccept = reader.bool("dispatch.auto_accept", false)
        node.queueLimit = reader.integer("dispatch.queue_limit", 100, 1...100_000)
    }

    private mutating func readAgent(_ reader: inout ConfigurationReader) {
        let command = reader.strings("agent.command") { $0.utf8.contains(0) ? "must not contain a NUL character" : nil }
        let names = AgentPreset.all.map(\.name) + ["custom"]
        let name = reader.string("agent.preset", "opencode") {
            names.contains($0) ? nil : "must be one of \(names.joined(separator: ", "))"
        }
        if let preset = AgentPreset.named(name) {
            node.agent = command.isEmpty ? preset : preset.replacingCommand(command)
        } else if command.isEmpty {
            reader.report("agent.command", "must be given with the preset custom")
        } else {
            node.agent = AgentPreset.custom(command)
        }
        node.agentEnvironment = reader.stringTable("agent.env")
    }

    private mutating func readPulse(_ reader: inout ConfigurationReader) {
        pulse.isEnabled = reader.bool("pulse.enabled", false)
        pulse.interval = .seconds(reader.integer("pulse.interval_seconds", 120, 10...86_400))
        pulse.repositoriesPath = reader.string("pulse.repos_json_path", "") { _ in nil }
        pulse.requiredLabel = reader.string("pulse.required_label", "") { _ in nil }
        pulse.apiURL = reader.string("pulse.api_url", GitHubClient.apiURL(ofGit: node.gitBaseURL)) {
            Names.problem(callbackURL: $0)
        }
        pulse.settleTime = reader.seconds("pulse.settle_seconds", 8)
        pulseUsesRemoteHosts = reader.bool("pulse.use_remote_hosts", true)
        pulse.model = node.defaultModel
    }

    private mutating func readSandbox(_ reader: inout ConfigurationReader) {
        let mostMB = 100_000_000
        var sandbox = SandboxSettings()
        sandbox.mode = reader.choice("sandbox.mode", sandbox.mode)
        let problem = { (path: String) in path.hasPrefix("/") ? nil : "must be an absolute path" }
        sandbox.readablePaths = reader.strings("sandbox.read_paths", problem)
        sandbox.writablePaths = reader.strings("sandbox.write_paths", problem)
        sandbox.bindPorts = reader.integers("sandbox.tcp_bind_ports", 0...65_535)
        sandbox.connectPorts = reader.integers("sandbox.tcp_connect_ports", 0...65_535)
        sandbox.maxProcesses = reader.integer("sandbox.max_processes", sandbox.maxProcesses, 0...1_000_000)
        sandbox.maxOpenFiles = reader.integer("sandbox.max_open_files", sandbox.maxOpenFiles, 0...1_000_000)
        sandbox.maxDiskMB = reader.integer("sandbox.max_disk_mb", sandbox.maxDiskMB, 0...mostMB)
        sandbox.maxFileMB = reader.integer("sandbox.max_file_mb", sandbox.maxFileMB, 0...mostMB)
        sandbox.maxMemoryMB = reader.integer("sandbox.max_memory_mb", sandbox.maxMemoryMB, 0...mostMB)
        sandbox.maxAddressSpaceMB = reader.integer(
            "sandbox.max_address_space_mb", sandbox.maxAddressSpaceMB, 0...mostMB)
        sandbox.niceIncrement = reader.integer("sandbox.nice", sandbox.niceIncrement, 0...19)
        sandbox.controlGroup = reader.string("sandbox.control_group", sandbox.controlGroup) {
            ["auto", "off"].contains($0) || $0.hasPrefix("/") ? nil : "must be auto, off or an absolute path"
        }
        node.sandbox = sandbox
    }

    /// Values that look like secrets by the names that they have.
    static func secrets(in environment: [String: String]) -> [String] {
        environment.filter { entry in
            ["KEY", "TOKEN", "SECRET", "PASSWORD"].contains { entry.key.uppercased().contains($0) }
        }.map(\.value).sorted()
    }

    private static func problem(baseURL url: String) -> String? {
        let schemes = ["https://", "http://", "file://", "ssh://"]
        guard schemes.contains(where: url.hasPrefix), url.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f }) else {
            return "must be an https, http, ssh or file URL"
        }
        let host = url.drop { $0 != ":" }.dropFirst(3).prefix { $0 != "/" }
        return host.contains("@") && !url.hasPrefix("ssh://")
            ? "must not hold a user or password: credentials come from GH_TOKEN" : nil
    }
}

/// What is wrong with a configuration, a sentence each.
struct ConfigurationError: Error, CustomStringConvertible {
    var problems: [String]
    var description: String { problems.joined(separator: "; ") }
}
