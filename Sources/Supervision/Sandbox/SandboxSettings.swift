/// How workers are held, as worker.json has it.
package struct SandboxSettings: Sendable, Equatable {
    package enum Mode: String, Sendable, CaseIterable {
        /// Without the kernel's means no task is taken.
        case enforce
        /// What the kernel has is used; what it lacks is told.
        case bestEffort = "best-effort"
        case off
    }

    package var mode = Mode.bestEffort
    /// Further paths that agents may read and execute.
    package var readablePaths: [String] = []
    /// Further paths that agents may change.
    package var writablePaths: [String] = []
    /// The TCP ports that agents may listen on; nil: all.
    package var bindPorts: [Int]?
    /// The TCP ports that agents may connect to; nil: all.
    package var connectPorts: [Int]?
    package var maxProcesses = 1024
    package var maxOpenFiles = 16_384
    /// Of all in the task's folder; 0: no limit, as for those below.
    package var maxDiskMB = 10_240
    package var maxFileMB = 0
    package var maxMemoryMB = 0
    package var maxAddressSpaceMB = 0
    package var niceIncrement = 10
    /// The cgroup v2 folder that workers get groups of their own in; `auto`: the node's own where it was delegated; `off`.
    package var controlGroup = "auto"

    package init() {}

    /// From here on Landlock holds all ways to change a file.
    static let leastVersionToEnforce = 3
}

/// What of the sandbox is in force on this machine.
package struct SandboxReport: Sendable, Equatable {
    package var mode: SandboxSettings.Mode
    package var landlockVersion: Int
    package var active: [String] = []
    /// What isn't, and why: a sentence each.
    package var missing: [String] = []

    /// The Landlock version of this kernel; 0: none.
    package static var kernelVersion: Int { Ruleset.version }

    package init(_ settings: SandboxSettings, landlockVersion: Int, controlGroups: ControlGroups.Status) {
        mode = settings.mode
        self.landlockVersion = landlockVersion
        guard mode != .off else {
            missing = ["the sandbox is off (sandbox.mode): agents may do all that the node may"]
            return
        }
        active = ["no_new_privs", "no_capabilities", "rlimits", "oom_score_adj", "quotas"]
        let abilities: [(least: Int, name: String, kernel: String, consequence: String)] = [
            (1, "files", "Linux 5.13 with Landlock", "agents can read and write whatever the node can"),
            (3, "truncation", "Linux 6.2", "agents can empty files of the node"),
            (4, "tcp_ports", "Linux 6.7", "sandbox.tcp_bind_ports and tcp_connect_ports have no effect"),
            (5, "device_ioctls", "Linux 6.10", "agents can use ioctls of devices that they were given open"),
            (6, "signals", "Linux 6.12", "agents can signal the node and each other"),
        ]
        for ability in abilities {
            if landlockVersion >= ability.least {
                active.append(ability.name)
            } else if ability.name != "tcp_ports" || settings.bindPorts != nil || settings.connectPorts != nil {
                missing.append("\(ability.name): needs \(ability.kernel); without it \(ability.consequence)")
            }
        }
        switch controlGroups {
        case .active: active.append("control_groups")
        case .inactive(let reason): missing.append("control_groups: \(reason)")
        }
    }

    /// Why no task may be taken; nil when it may.
    package var refusal: String? {
        guard mode == .enforce, landlockVersion < SandboxSettings.leastVersionToEnforce else { return nil }
        return "sandbox.mode is enforce, and this kernel can't: it has Landlock \(landlockVersion), and "
            + "\(SandboxSettings.leastVersionToEnforce) (Linux 6.2) is needed"
    }
}
