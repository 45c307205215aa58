/// What a worker-init is to do, as the server tells it: everything is decided and filled in, nothing is looked up.
///
/// It travels over descriptor 0 as `key NUL value NUL` pairs (worker-init has no JSON, to stay small).
package struct WorkOrder: Sendable, Equatable {
    /// How a worker comes to the node's SSH key.
    package enum SSHKey: String, Sendable, CaseIterable {
        /// It gets a copy.
        case copy
        /// It gets an agent's socket, and never sees the key.
        case agent
    }

    package enum PromptChannel: String, Sendable { case standardInput = "stdin", file, argument }

    /// One way to start the agent; the first whose `major` is nil or equals the program's major version is taken.
    package struct Launch: Sendable, Equatable {
        package var major: Int?
        package var arguments: [String]

        package init(major: Int? = nil, arguments: [String]) {
            self.major = major
            self.arguments = arguments
        }
    }

    /// What the worker's processes are held to.
    package struct Sandboxing: Sendable, Equatable {
        package var isOn = false
        /// The node's data folder, of which agents see nothing but their task's own.
        package var dataFolder = ""
        /// The remote repository, where it's a folder of this machine.
        package var localRemote = ""
        package var readablePaths: [String] = []
        package var writablePaths: [String] = []
        package var bindPorts: [Int]?
        package var connectPorts: [Int]?
        /// 0 each: no limit.
        package var maxOpenFiles = 0
        package var maxFileBytes = 0
        package var maxAddressSpaceBytes = 0
        package var maxDiskBytes = 0
        /// Of the agent, on top of the init's.
        package var niceIncrement: Int32 = 0
        /// Of the init, put on by who starts it.
        package var initNiceIncrement: Int32 = 0
    }

    package var taskID = ""
    /// The remote that the work comes from and goes to.
    package var remoteURL = ""
    /// The bare repository that all tasks on this remote share the objects of.
    package var cacheFolder = ""
    /// This task's own folder: `worktree`, `home` and `tmp` in it.
    package var taskFolder = ""
    package var branch = ""
    /// Whether the dispatch named the branch, so that a missing one is created; else the remote's default is taken.
    package var branchWasNamed = false
    /// What a branch that isn't there starts from; empty: the remote's default branch.
    package var baseBranch = ""
    /// Goes on in the worktree that is there.
    package var keepsWorktree = false
    /// The commit that the first attempt started from, when it is known: what the work is counted from.
    package var base = ""
    package var launches: [Launch] = []
    /// What to run to learn the agent's version; empty: no need to know.
    package var versionProbe: [String] = []
    package var installHint = ""
    package var promptChannel = PromptChannel.standardInput
    package var prompt = ""
    package var environment: [String: String] = [:]
    /// The content of `home/.gitconfig` when it's first made.
    package var gitConfiguration = ""
    /// Extra configuration of the git calls of the preparation (`key=value`).
    package var gitOptions: [String] = []
    /// Sent to the agent alone before TERM goes to the tree, or 0.
    package var firstCancelSignal: Int32 = 0
    package var gracePeriod = Duration.seconds(10)
    package var gitTimeout = Duration.seconds(600)
    package var sandbox = Sandboxing()
    /// Where the node's key and known hosts are, when the remote is reached over SSH; else empty.
    package var sshFolder = ""
    package var sshKey = SSHKey.copy

    package init() {}

    package var worktree: String { taskFolder + "/worktree" }
    package var home: String { taskFolder + "/home" }
    package var temporaryFolder: String { taskFolder + "/tmp" }
    package var promptFile: String { taskFolder + "/prompt.md" }
    package var sshSocket: String { temporaryFolder + "/ssh-agent" }
    package var usesSSH: Bool { !sshFolder.isEmpty }
}

extension WorkOrder {
    package func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        func add(_ key: String, _ value: String) {
            bytes.append(contentsOf: key.utf8)
            bytes.append(0)
            bytes.append(contentsOf: value.utf8)
            bytes.append(0)
        }
        add("task_id", taskID)
        add("remote_url", remoteURL)
        add("cache_folder", cacheFolder)
        add("task_folder", taskFolder)
        add("branch", branch)
        add("branch_was_named", branchWasNamed ? "1" : "0")
        add("base_branch", baseBranch)
        add("keeps_worktree", keepsWorktree ? "1" : "0")
        add("base", base)
        for launch in launches {
            add("launch", launch.major.map(String.init) ?? "")
            for argument in launch.arguments { add("argument", argument) }
        }
        for argument in versionProbe { add("probe", argument) }
        add("install_hint", installHint)
        add("prompt_channel", promptChannel.rawValue)
        add("prompt", prompt)
        for (name, value) in environment { add("env", "\(name)=\(value)") }
        add("git_configuration", gitConfiguration)
        for option in gitOptions { add("git_option", option) }
        add("first_cancel_signal", String(firstCancelSignal))
        add("grace_ns", String(gracePeriod.nanoseconds))
        add("git_timeout_ns", String(gitTimeout.nanoseconds))
        add("ssh_folder", sshFolder)
        add("ssh_key", sshKey.rawValue)
        for (key, value) in sandbox.entries { add("sandbox_" + key, value) }
        return bytes
    }

    /// Nil for bytes that no `encoded()` made.
    package init?(encoded bytes: [UInt8]) {
        let parts = bytes.split(separator: 0, omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
        // The last NUL leaves an empty part behind it.
        guard parts.count > 1, parts.count % 2 == 1, parts.last == "" else { return nil }
        for index in stride(from: 0, to: parts.count - 1, by: 2) {
            guard take(parts[index], parts[index + 1]) else { return nil }
        }
    }

    private mutating func take(_ key: String, _ value: String) -> Bool {
        switch key {
        case "task_id": taskID = value
        case "remote_url": remoteURL = value
        case "cache_folder": cacheFolder = value
        case "task_folder": taskFolder = value
        case "branch": branch = value
        case "branch_was_named": branchWasNamed = value == "1"
        case "base_branch": baseBranch = value
        case "keeps_worktree": keepsWorktree = value == "1"
        case "base": base = value
        case "launch": launches.append(Launch(major: Int(value), arguments: []))
        case "argument":
            guard !launches.isEmpty else { return false }
            launches[launches.count - 1].arguments.append(value)
        case "probe": versionProbe.append(value)
        case "install_hint": installHint = value
        case "prompt_channel":
            guard let channel = PromptChannel(rawValue: value) else { return false }
            promptChannel = channel
        case "prompt": prompt = value
        case "env":
            guard let equals = value.firstIndex(of: "=") else { return false }
            environment[String(value[..<equals])] = String(value[value.index(after: equals)...])
        case "git_configuration": gitConfiguration = value
        case "git_option": gitOptions.append(value)
        case "first_cancel_signal": firstCancelSignal = Int32(value) ?? 0
        case "grace_ns": gracePeriod = .nanoseconds(Int64(value) ?? 0)
        case "git_timeout_ns": gitTimeout = .nanoseconds(Int64(value) ?? 0)
        case "ssh_folder": sshFolder = value
        case "ssh_key":
            guard let key = SSHKey(rawValue: value) else { return false }
            sshKey = key
        default: return key.hasPrefix("sandbox_") && sandbox.take(String(key.dropFirst("sandbox_".count)), value)
        }
        return true
    }
}

extension WorkOrder.Sandboxing {
    fileprivate var entries: [(key: String, value: String)] {
        var entries = [
            ("on", isOn ? "1" : "0"), ("data", dataFolder), ("remote", localRemote),

            ("open_files", String(maxOpenFiles)), ("file_bytes", String(maxFileBytes)),
            ("address_space", String(maxAddressSpaceBytes)), ("disk_bytes", String(maxDiskBytes)),
            ("nice", String(niceIncrement)),
        ]
        entries += readablePaths.map { ("readable", $0) } + writablePaths.map { ("writable", $0) }
        for (key, ports) in [("bind", bindPorts), ("connect", connectPorts)] {
            if let ports { entries.append((key, ports.map(String.init).joined(separator: ","))) }
        }
        return entries
    }

    fileprivate mutating func take(_ key: String, _ value: String) -> Bool {
        var ports: [Int] { value.split(separator: ",").compactMap { Int($0) } }
        switch key {
        case "on": isOn = value == "1"
        case "data": dataFolder = value
        case "remote": localRemote = value
        case "open_files": maxOpenFiles = Int(value) ?? 0
        case "file_bytes": maxFileBytes = Int(value) ?? 0
        case "address_space": maxAddressSpaceBytes = Int(value) ?? 0
        case "disk_bytes": maxDiskBytes = Int(value) ?? 0
        case "nice": niceIncrement = Int32(value) ?? 0
        case "readable": readablePaths.append(value)
        case "writable": writablePaths.append(value)
        case "bind": bindPorts = ports
        case "connect": connectPorts = ports
        default: return false
        }
        return true
    }
}
