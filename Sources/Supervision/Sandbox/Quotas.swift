/// The most that one worker may take; 0: no limit.
package struct Quotas: Sendable, Equatable {
    package var processes = 0
    package var memoryMB = 0
    package var diskMB = 0

    package init() {}

    init(_ settings: SandboxSettings) {
        processes = settings.maxProcesses
        memoryMB = settings.maxMemoryMB
        diskMB = settings.maxDiskMB
    }

    /// The sentence that says what is too much; nil when nothing is.
    func exceeded(by use: ResourceUse) -> String? {
        let figures = [
            ("processes", "", use.processes, processes), ("memory", " MB", use.memoryKB / 1024, memoryMB),
            ("disk", " MB", use.diskKB / 1024, diskMB),
        ]
        return figures.first { $0.3 > 0 && $0.2 > $0.3 }.map { name, unit, amount, limit in
            "the worker took more \(name) than it may: \(amount)\(unit), and sandbox.max_"
                + "\(name)\(unit.isEmpty ? "" : "_mb") is \(limit)"
        }
    }
}
