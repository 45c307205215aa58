import Supervision
import TestSupport

/// Each leaves a record and a log of a block each, beside up to six worktrees of some hundred kilobytes.
private let tasksOnSmallDisk = 200

/// `kill -9` of the node at random moments under dispatch load: plainly, with a disk of 4 MiB, and with 64 descriptors.
func benchmarkChaos(_ table: Table, minutes: Int) throws {
    let variants: [(name: String, descriptors: Int?, isSmallDisk: Bool)] = [
        ("plain", nil, false), ("64 descriptors", 64, false), ("4 MiB disk", nil, true),
    ]
    for variant in variants {
        let folder = try TemporaryFolder()
        try Files.makeFolders(folder.path + "/data")
        if variant.isSmallDisk {
            guard
                (try? TestEnvironment.run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", folder.path + "/data"]))
                    != nil
            else {
                print("skipped: the small disk needs root to mount a tmpfs")
                continue
            }
        }
        defer { if variant.isSmallDisk { _ = try? TestEnvironment.run("umount", ["-l", folder.path + "/data"]) } }
        var chaos = try ChaosRun(
            descriptorLimit: variant.descriptors, folder: folder,
            maxTasks: variant.isSmallDisk ? tasksOnSmallDisk : .max)
        let report = try chaos.run(cycles: .max, until: ContinuousClock.now + .seconds(minutes * 20))
        let figures = [
            ("kills", report.cycles), ("accepted with 202", report.accepted), ("refused", report.refused),
            ("lost", report.lost),
            ("not succeeded", report.notSucceeded), ("started twice at once", report.startedTwiceAtOnce),
            ("processes left", report.leftProcesses), ("worktrees left", report.leftWorktrees),
        ]
        for (name, count) in figures { table.add("chaos, \(variant.name)", name, Double(count), "") }
    }
}
