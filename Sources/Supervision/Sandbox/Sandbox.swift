import CSystem
import Glibc

/// What a worker-init puts on itself and on what it starts: built from its order, with the kernel's means.
///
/// Two layers: the init and its git may change the caches and the task's folder; the agent, and any git in a worktree
/// that an agent had its hands on, only what is the agent's own. A layer can't be taken off, and an inner one only narrows.
final class Sandbox {
    private let order: WorkOrder

    /// Programs, their libraries, settings and the kernel's own files.
    private static let systemPaths = [
        "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store", "/proc", "/sys",
        "/run/systemd/resolve", "/run/resolvconf",
    ]
    private static let devices = [
        "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts",
    ]
    /// Memory that programs share by name: browsers and Python's multiprocessing can't do without.
    private static let sharedMemory = "/dev/shm"

    init(_ order: WorkOrder) { self.order = order }

    /// Narrows this process, for good.
    func enter() throws(SystemError) {
        // Raising it is everybody's right, as long as the process is still open to its own user.
        try Sandbox.offerToOutOfMemoryKiller()
        try check(cs_set_undumpable(), "prctl(PR_SET_DUMPABLE)")
        guard order.sandbox.isOn else { return }
        try check(cs_set_no_new_privileges(), "prctl(PR_SET_NO_NEW_PRIVS)")
        try check(cs_drop_capabilities(), "capset")
        guard Ruleset.version > 0 else { return }
        let rules = try Ruleset(bindPorts: nil, connectPorts: nil)
        for (path, rights) in common { rules.allow(path, rights) }
        if let caches = Files.parent(of: order.cacheFolder) { rules.allow(caches, .readAndWrite) }
        rules.allow(order.taskFolder, .readAndWrite)
        if order.usesSSH { rules.allow(order.sshFolder, .readAndExecute) }
        try rules.restrictSelf()
    }

    /// On top of the node's own: when memory runs out, all of a worker is killed before the node.
    private static let oomScoreAdjustment = 500
    private static let mostOomScoreAdjustment = 1000

    private static func offerToOutOfMemoryKiller() throws(SystemError) {
        let path = "/proc/self/oom_score_adj"
        // A container's engine may have set it already, and lowering it isn't everybody's right.
        let current = Int(String(decoding: try Files.read(path, limit: 64), as: UTF8.self).trimmed) ?? 0
        let raised = min(mostOomScoreAdjustment, max(0, current) + oomScoreAdjustment)
        let file = Descriptor(owning: try checkErrno("open \(path)") { unsafe open(path, O_WRONLY | O_CLOEXEC) })
        try file.writeAll(Array(String(raised).utf8))
    }

    private var madeConfinement: Confinement?

    /// What the agent is held to, made once. Its worktree must be there, and not be made anew after.
    func agentConfinement() throws(SystemError) -> Confinement? {
        guard order.sandbox.isOn else { return nil }
        if let madeConfinement { return madeConfinement }
        let confinement = Confinement(rules: Ruleset.version > 0 ? try agentRules() : nil, limits: limits)
        madeConfinement = confinement
        return confinement
    }

    private func agentRules() throws(SystemError) -> Ruleset {
        let rules = try Ruleset(bindPorts: order.sandbox.bindPorts, connectPorts: order.sandbox.connectPorts)
        for (path, rights) in common { rules.allow(path, rights) }
        for folder in [order.worktree, order.home, order.temporaryFolder] { rules.allow(folder, .readAndWrite) }
        rules.allow(order.promptFile, .readAndExecute)
        // The objects that the worktree borrows: of this remote alone, and not to be changed.
        rules.allow(order.cacheFolder, .readAndExecute)
        return rules
    }

    /// What both layers allow; found before the first is put on, which would hide some of it.
    private lazy var common: [(path: String, rights: Ruleset.Rights)] = {
        var common: [(path: String, rights: Ruleset.Rights)] = []
        let excluded = Files.realPath(order.sandbox.dataFolder) ?? order.sandbox.dataFolder
        func add(_ path: String, _ rights: Ruleset.Rights) {
            common += Sandbox.parts(of: path, without: excluded).map { ($0, rights) }
        }
        for path in Sandbox.systemPaths { add(path, .readAndExecute) }
        for path in Sandbox.devices { common.append((path, .device)) }
        common.append((Sandbox.sharedMemory, .readAndWrite))
        for path in order.sandbox.readablePaths.flatMap(Sandbox.withTarget) { add(path, .readAndExecute) }
        for path in order.sandbox.writablePaths.compactMap(Files.realPath) { add(path, .readAndWrite) }
        if !order.sandbox.localRemote.isEmpty { common.append((order.sandbox.localRemote, .readAndWrite)) }
        return common
    }()

    /// The path, or, since Landlock can't take back, all that is beside the way from it to the excluded folder.
    private static func parts(of path: String, without excluded: String) -> [String] {
        if path == excluded || path.hasPrefix(excluded + "/") { return [] }
        guard path == "/" || excluded.hasPrefix(path + "/") else { return [path] }
        return ((try? Files.names(in: path)) ?? []).flatMap { name -> [String] in
            let child = path == "/" ? "/" + name : path + "/" + name
            return Files.isSymbolicLink(child) ? [] : parts(of: child, without: excluded)
        }
    }

    /// A path, and where it leads; of a program that is a package of Node's, the packages beside it too.
    private static func withTarget(_ path: String) -> [String] {
        guard let target = Files.realPath(path) else { return [] }
        let parts = target.split(separator: "/")
        guard let modules = parts.firstIndex(of: "node_modules") else { return [target] }
        return [target, "/" + parts[...modules].joined(separator: "/")]
    }

    private var limits: [Confinement.Limit] {
        // Not RLIMIT_NPROC: it counts all of a user's threads, over all containers of the machine. The worker's own tree is
        // counted instead.
        let limits = [
            (CS_LIMIT_OPEN_FILES, order.sandbox.maxOpenFiles),
            (CS_LIMIT_FILE_BYTES, order.sandbox.maxFileBytes),
            (CS_LIMIT_ADDRESS_SPACE, order.sandbox.maxAddressSpaceBytes),
        ]
        return limits.filter { $0.1 > 0 }.map { Confinement.Limit(resource: Int32($0.0), value: UInt64($0.1)) }
            + [Confinement.Limit(resource: Int32(CS_LIMIT_CORE), value: 0)]
    }
}
