import CSystem
import Glibc

/// Measures, from time to time, what a worker's processes and its folder take. The server holds it against the limits.
struct ResourceWatch {
    /// How often processes and memory are looked at.
    static let interval = Duration.seconds(1)
    /// How often the folder is measured at most, and how much longer than the measuring itself the pause is.
    private static let diskInterval = Duration.seconds(10)
    private static let diskPauseFactor: Int64 = 50

    private let folder: String
    /// This much less room on the disk is a reason to measure the folder at once.
    private let alarmBytes: Int
    private let tell: (ResourceUse) -> Void
    private var use = ResourceUse()
    private var told = ResourceUse()
    private var nextDiskLook: Int64 = 0
    private var freeAtDiskLook = Int.max
    private(set) var due: Int64

    /// - Parameter diskLimit: in bytes; 0: none.
    init(folder: String, diskLimit: Int, tell: @escaping (ResourceUse) -> Void) {
        self.folder = folder
        alarmBytes = diskLimit > 0 ? max(diskLimit / 16, 1 << 20) : .max
        self.tell = tell
        due = cs_monotonic_ns() + ResourceWatch.interval.nanoseconds
    }

    mutating func look() {
        let tree = ProcessTree(root: getpid()).descendants()
        use.processes = tree.count
        use.memoryKB = tree.reduce(0) { $0 + ResourceWatch.ownMemoryKB(of: $1) }
        measureDisk()
        if differs {
            told = use
            tell(use)
        }
        due = cs_monotonic_ns() + ResourceWatch.interval.nanoseconds
    }

    private mutating func measureDisk() {
        let now = cs_monotonic_ns()
        let free = (try? Files.diskSpace(folder).free) ?? 0
        guard now >= nextDiskLook || freeAtDiskLook - free > alarmBytes else { return }
        use.diskKB = Files.diskUse(folder) / 1024
        let pause = max(
            ResourceWatch.diskInterval.nanoseconds, (cs_monotonic_ns() - now) * ResourceWatch.diskPauseFactor)
        nextDiskLook = cs_monotonic_ns() + pause
        freeAtDiskLook = free
    }

    /// Whether something changed by more than a sixteenth.
    private var differs: Bool {
        [
            (use.processes, told.processes), (use.memoryKB, told.memoryKB), (use.diskKB, told.diskKB),
        ].contains { abs($0.0 - $0.1) > max($0.0, $0.1) / 16 }
    }

    /// Resident memory that isn't of files or shared (proc_pid_statm(5)).
    private static func ownMemoryKB(of pid: Int32) -> Int {
        guard let bytes = try? Files.read("/proc/\(pid)/statm", limit: 4096) else { return 0 }
        let fields = bytes.split(separator: UInt8(ascii: " ")).prefix(3).compactMap {
            Int(String(decoding: $0, as: UTF8.self))
        }
        return fields.count == 3 ? max(0, fields[1] - fields[2]) * Int(getpagesize()) / 1024 : 0
    }
}
