/// What a worker's order takes from the node, besides the task.
package struct WorkerSurroundings: Sendable {
    package var paths: NodePaths
    package var settings: NodeSettings
    /// The node's own environment, from which the worker gets what is on the allowlist.
    package var environment: [String: String]

    package init(paths: NodePaths, settings: NodeSettings, environment: [String: String]) {
        self.paths = paths
        self.settings = settings
        self.environment = environment
    }

    /// What a worker may have of the node's environment. The dispatch token isn't in an environment at all.
    package static let allowedVariables = [
        "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SHELL", "TERM", "ANTHROPIC_API_KEY",
        "OPENROUTER_API_KEY", "GH_TOKEN",
    ]
    /// Its values among these are secrets.
    package static let secretVariables = ["ANTHROPIC_API_KEY", "OPENROUTER_API_KEY", "GH_TOKEN"]
}

extension WorkOrder {
    /// The order for the next attempt of a task.
    package init(for record: TaskRecord, mode: WorkerState.LaunchMode, in surroundings: WorkerSurroundings) {
        let settings = surroundings.settings
        let spec = record.spec
        self.init()
        taskID = spec.id
        remoteURL = settings.remoteURL(of: spec.repo)
        cacheFolder = surroundings.paths.cache(of: remoteURL)
        taskFolder = surroundings.paths.taskFolder(of: spec.continueTask ?? spec.id)
        branch = spec.branch
        branchWasNamed = spec.branchWasNamed
        baseBranch = spec.baseBranch ?? ""
        base = record.base ?? ""
        prompt = spec.prompt
        var session: String?
        if case .goOn(let words) = mode {
            keepsWorktree = true
            session = record.sessionID
            // Without a session the agent knows nothing of the task.
            prompt = session == nil ? spec.prompt : words
        }
        let values = placeValues(spec: spec, model: settings.agent.modelName(spec.model), session: session)
        launches = settings.agent.filledLaunches(values)
        versionProbe = settings.agent.versionProbe
        installHint = settings.agent.installHint
        promptChannel = settings.agent.promptChannel
        firstCancelSignal = settings.agent.firstCancelSignal
        gracePeriod = settings.cancelGrace
        environment = workerEnvironment(spec: spec, surroundings)
        // What agents ask for that refuse to work unattended as root elsewhere.
        if settings.sandbox.mode != .off, Ruleset.version > 0 { environment["IS_SANDBOX"] = "1" }
        environment.merge(settings.agent.filledEnvironment(values)) { $1 }
        environment.merge(settings.agentEnvironment) { $1 }
        gitOptions = WorkOrder.credentialOptions(baseURL: settings.gitBaseURL)
        gitConfiguration = WorkOrder.gitConfiguration(baseURL: settings.gitBaseURL)
        sandbox = sandboxing(surroundings)
        if remoteURL.hasPrefix("ssh://") { useSSH(surroundings) }
    }

    private mutating func useSSH(_ surroundings: WorkerSurroundings) {
        sshFolder = surroundings.paths.ssh
        sshKey = surroundings.settings.sshKey
        // ssh takes the home folder of the user, not of the environment.
        var options = ["-F", "/dev/null", "-o", "UserKnownHostsFile=\(home)/.ssh/known_hosts"]
        options += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
        switch sshKey {
        case .copy: options += ["-o", "IdentitiesOnly=yes", "-i", home + "/.ssh/" + WorkOrder.sshKeyName]
        case .agent: environment["SSH_AUTH_SOCK"] = sshSocket
        }
        let quoted = options.map { "'" + $0.replacing("'", with: "'\\''") + "'" }
        environment["GIT_SSH_COMMAND"] = "ssh " + quoted.joined(separator: " ")
    }

    private func sandboxing(_ surroundings: WorkerSurroundings) -> Sandboxing {
        let settings = surroundings.settings.sandbox
        var sandbox = Sandboxing()
        sandbox.isOn = settings.mode != .off
        sandbox.dataFolder = surroundings.paths.data
        if remoteURL.hasPrefix("file://") { sandbox.localRemote = String(remoteURL.dropFirst("file://".count)) }
        // Where programs are, and the agent's own files; of the command as it's configured, never of what a task fills in.
        var searched = (environment["PATH"] ?? "").split(separator: ":").map(String.init)
        searched += searched.filter { $0.hasSuffix("/bin") }.flatMap { bin in
            ["lib", "libexec"].map { bin.dropLast("bin".count) + $0 }
        }
        let agent = surroundings.settings.agent.launches.flatMap(\.arguments)
        let program = agent.first.flatMap { Files.findProgram($0, path: environment["PATH"] ?? "") }
        sandbox.readablePaths =
            (searched + agent + [program ?? ""]).filter { $0.hasPrefix("/") && !$0.contains("{") }
            + settings.readablePaths
        sandbox.writablePaths = settings.writablePaths
        sandbox.bindPorts = settings.bindPorts
        sandbox.connectPorts = settings.connectPorts
        sandbox.maxOpenFiles = settings.maxOpenFiles
        sandbox.maxFileBytes = (settings.maxFileMB > 0 ? settings.maxFileMB : settings.maxDiskMB) << 20
        sandbox.maxAddressSpaceBytes = settings.maxAddressSpaceMB << 20
        sandbox.maxDiskBytes = settings.maxDiskMB << 20
        // The init and its git stand back for the node by half, the agent for both.
        sandbox.initNiceIncrement = Int32(settings.niceIncrement / 2)
        sandbox.niceIncrement = Int32(settings.niceIncrement) - sandbox.initNiceIncrement
        return sandbox
    }

    private func placeValues(spec: TaskSpec, model: String, session: String?) -> AgentPreset.Values {
        var values = AgentPreset.Values()
        values.model = model
        values.workdir = worktree
        values.prompt = prompt
        values.promptFile = promptFile
        values.session = session
        values.title = spec.issue.map { "Issue #\($0.number): \($0.title)" } ?? spec.id
        values.home = home
        return values
    }

    private func workerEnvironment(spec: TaskSpec, _ surroundings: WorkerSurroundings) -> [String: String] {
        var environment = surroundings.environment.filter { WorkerSurroundings.allowedVariables.contains($0.key) }
        environment["HOME"] = home
        environment["TMPDIR"] = temporaryFolder
        environment["XDG_CONFIG_HOME"] = home + "/.config"
        environment["XDG_CACHE_HOME"] = home + "/.cache"
        environment["XDG_DATA_HOME"] = home + "/.local/share"
        environment["XDG_STATE_HOME"] = home + "/.local/state"
        environment["AIDEVOPS_TASK_ID"] = spec.id
        environment["WORKER_REPO_SLUG"] = spec.repo
        environment["WORKER_WORKTREE_PATH"] = worktree
        environment["AIDEVOPS_SESSION_ORIGIN"] = "worker"
        environment["HEADLESS"] = "1"
        for flag in ["FULL_LOOP_HEADLESS", "AIDEVOPS_HEADLESS", "AIDEVOPS_REMOTE_DISPATCH"] {
            environment[flag] = "true"
        }
        environment["GIT_TERMINAL_PROMPT"] = "0"
        if let issue = spec.issue {
            environment["WORKER_ISSUE_NUMBER"] = String(issue.number)
            environment["WORKER_GITHUB_LOGIN"] = issue.login
            environment["AIDEVOPS_DISPATCH_LEASE_TOKEN"] = issue.leaseToken
            environment["AIDEVOPS_DISPATCH_LEASE_DEVICE"] = issue.device
            environment["AIDEVOPS_ATTEMPT_ID"] = issue.attemptID
        }
        return environment
    }
}

extension WorkOrder {
    /// The file of the node's key.
    package static let sshKeyName = "id_ed25519"
}

// MARK: - Git's configuration

extension WorkOrder {
    /// Hands GH_TOKEN, from the environment, to git for the configured host and no other: never in a URL, an argument, a
    /// log or a stored configuration.
    private static let helper =
        #"!f() { test "$1" = get && test -n "$GH_TOKEN" && printf 'username=x-access-token\npassword=%s\n' "$GH_TOKEN"; }; f"#

    private static func credentialOptions(baseURL: String) -> [String] {
        guard let origin = origin(of: baseURL) else { return ["credential.helper="] }
        return ["credential.helper=", "credential.\(origin).helper=\(helper)"]
    }

    /// `https://host` of a URL; nil for other schemes, which need no password.
    private static func origin(of url: String) -> String? {
        guard url.hasPrefix("https://") else { return nil }
        return "https://" + url.dropFirst(8).prefix { $0 != "/" }
    }

    /// The agent's own git configuration: who commits, and how git gets its password.
    private static func gitConfiguration(baseURL: String) -> String {
        var text = """
            [user]
            \tname = AI DevOps Worker
            \temail = aidevops-worker@users.noreply.github.com
            [init]
            \tdefaultBranch = main
            [push]
            \tautoSetupRemote = true
            [credential]
            \thelper =

            """
        if let origin = origin(of: baseURL) {
            let quoted = helper.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
            text += "[credential \"\(origin)\"]\n\thelper = \"\(quoted)\"\n"
        }
        return text
    }
}
