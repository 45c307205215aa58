import CSystem

/// What a process and all that it starts is held to, put on between fork and exec: files and ports (Landlock), and
/// resources (setrlimit(2)).
package final class Confinement: Sendable {
    package struct Limit: Sendable, Equatable {
        let resource: Int32
        let value: UInt64
    }

    private let rules: Ruleset?
    let limits: [Limit]

    init(rules: Ruleset?, limits: [Limit]) {
        self.rules = rules
        self.limits = limits
    }

    /// -1: none.
    var ruleset: Int32 { rules?.number ?? -1 }
}

/// A set of Landlock rules (landlock(7)): what none of them allows is refused to who puts it on.
final class Ruleset: Sendable {
    enum Rights: Int32 {
        case readAndExecute = 0
        /// All but making device nodes.
        case readAndWrite = 1
        case device = 2
    }

    private let descriptor: Descriptor
    var number: Int32 { descriptor.number }

    /// What the kernel can: 0 without Landlock. Version 1 (Linux 5.13) holds files, 3 (6.2) their truncation too, 4 (6.7)
    /// TCP ports, 5 (6.10) the ioctls of devices, 6 (6.12) abstract sockets and signals.
    static var version: Int { Int(max(0, cs_landlock_version())) }

    /// - Parameters:
    ///   - bindPorts: the TCP ports that may be listened on; nil: all.
    ///   - connectPorts: those that may be connected to; nil: all.
    init(bindPorts: [Int]?, connectPorts: [Int]?) throws(SystemError) {
        descriptor = Descriptor(
            owning: try check(
                cs_landlock_ruleset(bindPorts == nil ? 0 : 1, connectPorts == nil ? 0 : 1), "landlock_create_ruleset"))
        guard Ruleset.version >= 4 else { return }
        for port in bindPorts ?? [] { try allow(port: port, bind: 1, connect: 0) }
        for port in connectPorts ?? [] { try allow(port: port, bind: 0, connect: 1) }
    }

    private func allow(port: Int, bind: Int32, connect: Int32) throws(SystemError) {
        try check(
            cs_landlock_allow_port(number, UInt16(truncatingIfNeeded: port), bind, connect), "landlock_add_rule \(port)"
        )
    }

    /// Allows a path and all below it; one that isn't there is passed over.
    func allow(_ path: String, _ rights: Rights) { _ = unsafe cs_landlock_allow_path(number, path, rights.rawValue) }

    /// Puts it on this thread and all that it starts; for good.
    func restrictSelf() throws(SystemError) {
        try check(cs_landlock_restrict_self(number), "landlock_restrict_self")
    }
}
