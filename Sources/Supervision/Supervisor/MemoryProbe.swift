/// How much memory there is for workers, by the tightest of the limits that hold here: the cgroup's (v2 or v1, and those
/// above it) and the machine's.
package struct MemoryReading: Sendable, Equatable {
    package var totalMB: Int
    package var availableMB: Int

    package static func now() -> MemoryReading { read(root: "") }

    /// - Parameter root: the folder that holds `proc` and `sys`; for tests.
    package static func read(root: String) -> MemoryReading {
        let info = fields(of: root + "/proc/meminfo", unit: 1024)
        var total = info["MemTotal:"] ?? 0
        var available = info["MemAvailable:"] ?? info["MemFree:"] ?? 0
        for group in groups(root) {
            guard let limit = group.limit, limit < total else { continue }
            total = limit
            available = min(available, max(0, limit - group.used))
        }
        return MemoryReading(totalMB: Int(total >> 20), availableMB: Int(available >> 20))
    }

    private struct Group {
        var limit: UInt64?
        /// Without the page cache that the kernel gives back when it's asked.
        var used: UInt64
    }

    private static func groups(_ root: String) -> [Group] {
        guard let lines = text(of: root + "/proc/self/cgroup") else { return [] }
        var found: [Group] = []
        for line in lines.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            if parts[0] == "0" {
                found += paths(parts[2]).compactMap { group(root + "/sys/fs/cgroup" + $0, v2) }
            } else if parts[1].split(separator: ",").contains("memory") {
                found += paths(parts[2]).compactMap { group(root + "/sys/fs/cgroup/memory" + $0, v1) }
            }
        }
        return found
    }

    /// The group's own folder and those above it; in a container, where the path is the host's, only the topmost exists.
    private static func paths(_ path: Substring) -> [String] {
        var folders = [""]
        for part in path.split(separator: "/") { folders.append(folders[folders.count - 1] + "/" + part) }
        return folders
    }

    private typealias Names = (limit: String, usage: String, cache: String)
    private static let v2: Names = ("/memory.max", "/memory.current", "inactive_file")
    private static let v1: Names = ("/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file")

    private static func group(_ folder: String, _ names: Names) -> Group? {
        guard let usage = text(of: folder + names.usage).flatMap({ UInt64($0.trimmed) }) else { return nil }
        let cache = fields(of: folder + "/memory.stat", unit: 1)[names.cache] ?? 0
        return Group(
            limit: text(of: folder + names.limit).flatMap { UInt64($0.trimmed) }, used: usage - min(usage, cache))
    }

    private static func fields(of path: String, unit: UInt64) -> [String: UInt64] {
        var fields: [String: UInt64] = [:]
        for line in (text(of: path) ?? "").split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count >= 2, let value = UInt64(words[1]) { fields[String(words[0])] = value * unit }
        }
        return fields
    }

    private static func text(of path: String) -> String? {
        (try? Files.read(path, limit: 64 * 1024)).map { String(decoding: $0, as: UTF8.self) }
    }
}
