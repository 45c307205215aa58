import CSystem
import Glibc

/// The processes below one that is a child subreaper, as the kernel lists them (`/proc/PID/task/TID/children`,
/// CONFIG_PROC_CHILDREN). Because it is a subreaper, none of them can leave the tree.
package struct ProcessTree: Sendable {
    package let root: Int32

    package init(root: Int32) { self.root = root }

    /// Whether this kernel lists children; without it no tree can be ended for certain.
    package static var isSupported: Bool { Files.exists("/proc/self/task/\(getpid())/children") }

    /// The processes directly below `pid`, those of all its threads.
    package static func children(of pid: Int32) -> [Int32] {
        guard let threads = try? Files.names(in: "/proc/\(pid)/task") else { return [] }
        return threads.flatMap { numbers(in: "/proc/\(pid)/task/\($0)/children") }
    }

    /// All processes below the root, parents before their children. What forks meanwhile may be missing.
    package func descendants() -> [Int32] {
        var found = ProcessTree.children(of: root)
        var seen = Set(found)
        var next = 0
        while next < found.count {
            for child in ProcessTree.children(of: found[next]) where seen.insert(child).inserted { found.append(child) }
            next += 1
        }
        return found
    }

    /// Kills once what there is now. A process group dies as one (the kernel holds off forks meanwhile), so a
    /// process that forks within its group can't outrun this; one that makes a new session each time is met again by
    /// the next call, as an orphan that has come to the root.
    package func killOnce(sparing spared: (Int32) -> Bool = { _ in false }) {
        let ownGroup = getpgid(root)
        for child in ProcessTree.children(of: root) where !spared(child) {
            ProcessTree.kill(child, ownGroup: ownGroup)
            for descendant in ProcessTree(root: child).descendants() {
                ProcessTree.kill(descendant, ownGroup: ownGroup)
            }
        }
    }

    private static func kill(_ pid: Int32, ownGroup: Int32) {
        let group = getpgid(pid)
        if group > 1 && group != ownGroup { _ = cs_kill(-group, SIGKILL) }
        _ = cs_kill(pid, SIGKILL)
    }

    private static func numbers(in path: String) -> [Int32] {
        guard let bytes = try? Files.read(path, limit: 1 << 20) else { return [] }
        return bytes.split(separator: UInt8(ascii: " ")).compactMap { Int32(String(decoding: $0, as: UTF8.self)) }
    }
}
