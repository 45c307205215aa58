import CSystem

/// A program to start: found already, its arguments as an array, its whole environment.
package struct Command: Sendable {
    package var path: String
    /// With the program's own name first.
    package var arguments: [String]
    package var environment: [String: String]
    package var directory: String?
    /// A session of its own, so that no terminal and no process group of ours reaches it; else only a process group.
    package var newSession: Bool
    package var niceIncrement: Int32
    /// What it may see and use; nil: what its parent may.
    package var confinement: Confinement?

    package init(
        path: String, arguments: [String], environment: [String: String], directory: String? = nil,
        newSession: Bool = true, niceIncrement: Int32 = 0,
        confinement: Confinement? = nil
    ) {
        self.path = path
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
        self.newSession = newSession
        self.niceIncrement = niceIncrement
        self.confinement = confinement
    }

    /// Starts the program with exactly these descriptors: the child's descriptor i is `descriptors[i]`.
    ///
    /// Blocks until exec has worked or failed (some 100 µs: vfork, so no memory is copied).
    /// - Parameter group: `cgroup.procs` of the control group that it's to be in from the start, open for writing.
    /// - Returns: the process id.
    /// - Throws: `SystemError` with the errno of what failed up to and with exec; then no process is left.
    package func spawn(descriptors: [Int32], group: Int32 = -1) throws(SystemError) -> Int32 {
        let environment = environment.map { "\($0.key)=\($0.value)" }
        let limits = (confinement?.limits ?? []).map { cs_limit(resource: $0.resource, value: $0.value) }
        var request = unsafe cs_spawn_request()
        unsafe request.descriptor_count = Int32(descriptors.count)
        unsafe request.new_session = newSession ? 1 : 0
        unsafe request.nice_increment = niceIncrement
        unsafe request.limit_count = Int32(limits.count)
        unsafe request.ruleset = confinement?.ruleset ?? -1
        unsafe request.group = group
        let result = unsafe withCStringArray(arguments) { arguments in
            unsafe withCStringArray(environment) { environment in
                unsafe withOptionalCString(directory) { directory in
                    unsafe path.withCString { path in
                        unsafe descriptors.withUnsafeBufferPointer { descriptors in
                            unsafe limits.withUnsafeBufferPointer { limits in
                                unsafe request.path = path
                                unsafe request.argv = arguments
                                unsafe request.envp = environment
                                unsafe request.directory = directory
                                unsafe request.descriptors = descriptors.baseAddress
                                unsafe request.limits = limits.baseAddress
                                return unsafe cs_spawn(&request)
                            }
                        }
                    }
                }
            }
        }
        return try check(result, "start \(path)")
    }
}

/// How a process ended, and what it and the children it waited for used.
package struct ChildExit: Sendable, Equatable {
    package enum Status: Sendable, Equatable, CustomStringConvertible {
        case exited(Int32)
        case signalled(Int32)

        package var description: String {
            switch self {
            case .exited(let code): "exit code \(code)"
            case .signalled(let signal): "signal \(signal)"
            }
        }
    }

    package let pid: Int32
    package let status: Status
    package let userTime: Duration
    package let systemTime: Duration
    package let peakMemoryKB: Int64

    /// Reaps a child that has ended (`pid`, or any with -1) without waiting; nil when none has.
    package static func reap(_ pid: Int32 = -1) -> Reaped {
        var exit = cs_exit()
        let result = unsafe cs_wait(pid, &exit)
        guard result > 0 else { return result == 0 ? .stillRunning : .noChildren }
        return .ended(
            ChildExit(
                pid: exit.pid, status: exit.signal == 0 ? .exited(exit.code) : .signalled(exit.signal),
                userTime: .microseconds(exit.user_us), systemTime: .microseconds(exit.system_us),
                peakMemoryKB: exit.peak_rss_kb))
    }

    package enum Reaped: Sendable {
        case ended(ChildExit)
        case stillRunning
        case noChildren
    }
}

/// Lends `strings` as a NULL-terminated array of C strings.
private func withCStringArray<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>?) -> Result
) -> Result {
    var bytes: [CChar] = []
    var offsets: [Int] = []
    for string in strings {
        offsets.append(bytes.count)
        bytes.append(contentsOf: string.utf8.lazy.map { CChar(bitPattern: $0) })
        bytes.append(0)
    }
    return unsafe bytes.withUnsafeMutableBufferPointer { bytes in
        var table: [UnsafeMutablePointer<CChar>?] = unsafe []
        for offset in offsets { unsafe table.append(bytes.baseAddress.map { unsafe $0 + offset }) }
        unsafe table.append(nil)
        return unsafe table.withUnsafeBufferPointer { unsafe body($0.baseAddress) }
    }
}

private func withOptionalCString<Result>(_ string: String?, _ body: (UnsafePointer<CChar>?) -> Result) -> Result {
    guard let string else { return body(nil) }
    return unsafe string.withCString(body)
}
