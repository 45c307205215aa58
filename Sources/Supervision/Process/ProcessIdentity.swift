/// Tells a process from a later one that was given the same pid.
package enum ProcessIdentity {
    /// When the process started, in clock ticks since boot (field 22 of proc_pid_stat(5)); nil when there is none.
    package static func startTime(of pid: Int32) -> UInt64? {
        guard let bytes = try? Files.read("/proc/\(pid)/stat", limit: 4096) else { return nil }
        // The name, in parentheses, may hold anything; the fields are counted from its end.
        guard let name = bytes.lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = bytes[(name + 1)...].split(separator: UInt8(ascii: " "))
        return fields.count > 19 ? UInt64(String(decoding: fields[19], as: UTF8.self)) : nil
    }
}
