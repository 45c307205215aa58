import Glibc

/// What this process uses.
package struct ProcessFigures: Sendable {
    package var residentBytes = 0
    package var openDescriptors = 0
    package var cpuSeconds = 0.0

    package static func now() -> ProcessFigures {
        var figures = ProcessFigures()
        if let bytes = try? Files.read("/proc/self/statm", limit: 4096) {
            let fields = bytes.split(separator: UInt8(ascii: " "))
            let pages = fields.count > 1 ? Int(String(decoding: fields[1], as: UTF8.self)) ?? 0 : 0
            figures.residentBytes = pages * Int(sysconf(Int32(_SC_PAGESIZE)))
        }
        // Without the one of the listing itself.
        figures.openDescriptors = max(0, ((try? Files.names(in: "/proc/self/fd")) ?? []).count - 1)
        var time = timespec()
        if unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0 {
            figures.cpuSeconds = Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        return figures
    }
}
