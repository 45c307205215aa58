import CSystem
import Glibc

/// Control groups (cgroups(7), version 2) of workers, where a part of the hierarchy was given to this node: their limits
/// hold also between two looks of the quotas, and one write kills all of a worker at once.
package final class ControlGroups: Sendable {
    package enum Status: Sendable, Equatable {
        case active
        case inactive(String)
    }

    private let root: String?
    package let status: Status

    private static let prefix = "worker-"
    private static let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]

    /// Takes possession: kills and removes what an earlier run of the node left there.
    @available(*, noasync)
    package init(_ setting: String) {
        switch ControlGroups.find(setting) {
        case .success(let root):
            self.root = root
            status = .active
            for name in (try? Files.names(in: root)) ?? [] where name.hasPrefix(ControlGroups.prefix) {
                ControlGroup(path: root + "/" + name).remove()
            }
        case .failure(let reason):
            root = nil
            status = .inactive(reason.sentence)
        }
    }

    private struct Obstacle: Error {
        var sentence: String

        init(_ sentence: String) { self.sentence = sentence }
    }

    private static func find(_ setting: String) -> Result<String, Obstacle> {
        guard setting != "off" else { return .failure(Obstacle("sandbox.control_group is off")) }
        guard setting == "auto" else {
            guard unsafe cs_is_cgroup2(setting) == 1 else {
                return .failure(Obstacle("\(setting) isn't a folder of cgroup version 2"))
            }
            return unsafe access(setting, W_OK) == 0
                ? .success(setting) : .failure(Obstacle("\(setting) can't be written by this user"))
        }
        guard let mount = mounts.first(where: { unsafe cs_is_cgroup2($0) == 1 }), let own = ownPath else {
            return .failure(Obstacle("there is no cgroup version 2"))
        }
        let folder = own == "/" ? mount : mount + own
        // Who may write all may not take what another manages: systemd marks what it delegates.
        let isDelegated = unsafe geteuid() != 0 || cs_is_delegated(folder) == 1
        guard isDelegated, unsafe access(folder, W_OK) == 0, unsafe access(folder + "/cgroup.procs", W_OK) == 0 else {
            return .failure(Obstacle("the node's own group wasn't delegated to it (systemd: Delegate=yes)"))
        }
        return takeOver(folder)
    }

    /// A group with processes can't give controllers to groups below it: the node moves into one of its own.
    private static func takeOver(_ folder: String) -> Result<String, Obstacle> {
        unsafe mkdir(folder + "/node", 0o755)
        do throws(SystemError) {
            try write("0", to: folder + "/node/cgroup.procs")
        } catch { return .failure(Obstacle("the node can't move to a group of its own: \(error)")) }
        for controller in ["memory", "pids"] { try? write("+\(controller)", to: folder + "/cgroup.subtree_control") }
        return .success(folder)
    }

    private static var ownPath: String? {
        guard let bytes = try? Files.read("/proc/self/cgroup", limit: 65_536) else { return nil }
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        return lines.first { $0.hasPrefix("0::/") }.map { String($0.dropFirst(3)) }
    }

    /// Makes the group of a worker; nil where there are none.
    @available(*, noasync)
    func makeGroup(for id: String, _ settings: SandboxSettings) throws(SystemError) -> ControlGroup? {
        guard let root else { return nil }
        let group = ControlGroup(path: "\(root)/\(ControlGroups.prefix)\(id)")
        group.remove()
        try checkErrno("mkdir \(group.path)") { unsafe mkdir(group.path, 0o755) }
        // A controller that wasn't delegated has no such files; the quotas hold in its stead.
        if settings.maxProcesses > 0 {
            try? ControlGroups.write("\(settings.maxProcesses)", to: group.path + "/pids.max")
        }
        if settings.maxMemoryMB > 0 {
            try? ControlGroups.write("\(settings.maxMemoryMB << 20)", to: group.path + "/memory.max")
        }
        return group
    }

    fileprivate static func write(_ text: String, to path: String) throws(SystemError) {
        let file = Descriptor(owning: try checkErrno("open \(path)") { unsafe open(path, O_WRONLY | O_CLOEXEC) })
        try file.writeAll(Array(text.utf8))
    }
}

/// One worker's control group.
struct ControlGroup: Sendable {
    let path: String

    /// The file by which processes enter it, open for writing.
    func entry() throws(SystemError) -> Descriptor {
        let file = path + "/cgroup.procs"
        return Descriptor(
            owning: try checkErrno("open \(file)") { unsafe open(file, O_WRONLY | O_CLOEXEC) })
    }

    /// Kills all that is in it (Linux 5.14).
    func kill() { try? ControlGroups.write("1", to: path + "/cgroup.kill") }

    /// Kills what is in it, and removes it; one whose processes take long to die is left to the next that comes by.
    func remove() {
        guard unsafe rmdir(path) != 0, errno == EBUSY else { return }
        kill()
        _ = unsafe rmdir(path)
    }
}
