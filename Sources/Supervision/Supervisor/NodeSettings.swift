import Glibc

/// What the supervision tree needs of the configuration; replaced as a whole when the configuration changes.
package struct NodeSettings: Sendable, Equatable {
    package var maxConcurrent = 2
    package var memoryPerWorkerMB = 256
    /// Memory that is never given to workers.
    package var memoryReserveMB = 0
    package var idleTimeout = Duration.seconds(30 * 60)
    /// Zero: no limit.
    package var maxRuntime = Duration.zero
    package var cancelGrace = Duration.seconds(10)
    package var defaultModel = "anthropic/claude-sonnet-4-6"
    /// Empty: all.
    package var allowedRepos: [String] = []
    package var autoAccept = false
    package var queueLimit = 100
    package var agent = AgentPreset.all[0]
    package var agentEnvironment: [String: String] = [:]
    package var gitBaseURL = "https://github.com"
    package var sshKey = WorkOrder.SSHKey.copy
    package var restart = RestartPolicy()
    package var maxContinuations = 2
    package var logFileLimit = 10 << 20
    /// Values that must never be stored or shown.
    package var secrets: [String] = []
    package var worktreeRetention = Duration.seconds(24 * 3600)
    package var recordRetention = Duration.seconds(30 * 24 * 3600)
    package var sandbox = SandboxSettings()
    /// Where the record of every ended task is posted; empty: nowhere.
    package var noticeURL = ""
    /// What the posts are signed with; empty: they aren't.
    package var noticeSecret = ""
    /// The hosts that a dispatch may name for its own callback.
    package var callbackHosts: [String] = []

    package init() {}

    package func allows(repo: String) -> Bool {
        allowedRepos.isEmpty || allowedRepos.contains { $0.lowercased() == repo.lowercased() }
    }

    package func allows(callback url: String) -> Bool {
        callbackHosts.contains { $0.lowercased() == Names.host(of: url)?.lowercased() }
    }

    package func remoteURL(of repo: String) -> String {
        (gitBaseURL.hasSuffix("/") ? String(gitBaseURL.dropLast()) : gitBaseURL) + "/\(repo).git"
    }

    package var workerRules: WorkerState.Rules {
        var rules = WorkerState.Rules()
        rules.restart = restart
        rules.maxContinuations = maxContinuations
        rules.canResume = agent.canResume
        rules.quotas = Quotas(sandbox)
        rules.noticeURL = noticeURL
        return rules
    }
}

/// Where things are in the data folder.
package struct NodePaths: Sendable {
    /// Absolute.
    package let data: String

    package init(data: String) { self.data = data }

    package var config: String { data + "/config" }
    package var tasks: String { data + "/tasks" }
    package var logs: String { data + "/logs" }
    package var workspace: String { data + "/workspace" }
    /// The node's key and the pinned host keys.
    package var ssh: String { data + "/.ssh" }

    package func log(of id: String) -> String { "\(logs)/\(id).log" }
    package func taskFolder(of id: String) -> String { "\(workspace)/tasks/\(id)" }

    /// The shared cache of a remote. The characters that a path can't have are escaped, so that no two remotes share one.
    package func cache(of remoteURL: String) -> String {
        let name = remoteURL.utf8.map { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "."), UInt8(ascii: "-"):
                String(UnicodeScalar(byte))
            default: "_" + String(byte, radix: 16)
            }
        }.joined()
        return "\(workspace)/cache/\(name.suffix(200))"
    }

    /// Makes the folders, private to this user.
    @available(*, noasync)
    package func makeFolders() throws(SystemError) {
        for folder in [data, config, tasks, logs, workspace, workspace + "/cache", workspace + "/tasks"] {
            try Files.makeFolders(folder)
            // A restored backup comes with other modes.
            if !Files.isSymbolicLink(folder) { unsafe chmod(folder, 0o700) }
        }
    }
}
