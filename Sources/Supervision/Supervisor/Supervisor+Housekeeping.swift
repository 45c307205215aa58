import FoundationEssentials

/// What the data folder takes, and what is left.
package struct DiskReading: Sendable, Equatable {
    package var freeMB: Int
    package var totalMB: Int
    package var workspaceMB: Int
    package var logsMB: Int
}

/// Removes what has had its time, and looks after the storage.
extension Supervisor {
    static let housekeepingInterval = Duration.seconds(600)
    /// How often storage that failed is tried again.
    static let storageProbeInterval = Duration.seconds(2)

    /// Ended tasks: their worktrees go after `worktreeRetention`, their records and logs after `recordRetention`. A worktree
    /// with work that was never pushed stays as long as its record.
    func keepHouse() async {
        let now = services.ambient.now()
        let inUse = Set(records.values.filter { !$0.state.isEnded }.map { $0.spec.continueTask ?? $0.id })
        var lastUse: [String: Date] = [:]
        var unpushed: Set<String> = []
        for summary in history.values {
            let end = summary.endedAt ?? summary.createdAt
            lastUse[summary.folderOwner] = max(lastUse[summary.folderOwner] ?? end, end)
            if summary.hasUnpushedWork { unpushed.insert(summary.folderOwner) }
        }
        keptWorktrees = []
        for summary in history.values.sorted(by: { $0.createdAt < $1.createdAt }) {
            let age = Duration.seconds(now.timeIntervalSince(lastUse[summary.folderOwner] ?? now))
            guard !inUse.contains(summary.folderOwner), workers[summary.id] == nil else { continue }
            if age >= settings.recordRetention {
                await removeTask(summary)
            } else if age >= settings.worktreeRetention, !summary.worktreeRemoved {
                if unpushed.contains(summary.folderOwner) {
                    if summary.id == summary.folderOwner { keptWorktrees.append(summary.id) }
                } else {
                    await removeWorktree(summary)
                }
            }
        }
        await measureDisk()
    }

    private func removeTask(_ summary: TaskSummary) async {
        let log = LogFile(path: paths.log(of: summary.id), limit: settings.logFileLimit)
        let folder = paths.taskFolder(of: summary.folderOwner)
        let isRemoved = await services.files.run {
            for path in [log.path, log.olderPath, folder] {
                guard (try? Files.remove(path)) != nil else { return false }
            }
            return true
        }
        // The record goes last: what a crash leaves behind is found by it the next time.
        guard isRemoved, records[summary.id] == nil, (try? await services.store.remove(summary.id)) != nil else {
            return
        }
        if records[summary.id] == nil { history[summary.id] = nil }
    }

    private func removeWorktree(_ summary: TaskSummary) async {
        let folder = paths.taskFolder(of: summary.folderOwner)
        guard await services.files.run({ (try? Files.remove(folder)) != nil }),
            var record = await services.store.load(summary.id),
            records[summary.id] == nil
        else { return }
        record.worktreeRemoved = true
        if (try? await services.store.save(record)) != nil, records[summary.id] == nil {
            history[summary.id] = TaskSummary(record)
        }
    }

    private func measureDisk() async {
        let paths = paths
        disk = await services.files.run {
            guard let space = try? Files.diskSpace(paths.data) else { return nil }
            return DiskReading(
                freeMB: space.free >> 20, totalMB: space.total >> 20, workspaceMB: Files.diskUse(paths.workspace) >> 20,
                logsMB: Files.diskUse(paths.logs) >> 20)
        }
    }

    /// Tries storage that failed, and forgets the fault once it works again.
    func probeStorage() async {
        let path = paths.tasks + "/.probe.tmp"
        let fault = await services.files.run { () -> SystemError? in
            do throws(SystemError) {
                try Files.replace(path, with: Array("probe\n".utf8))
                try Files.remove(path)
                return nil
            } catch { return error }
        }
        storageFault = fault
    }
}
