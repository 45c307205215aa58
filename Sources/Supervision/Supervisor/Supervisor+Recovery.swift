import CSystem
import FoundationEssentials
import Glibc

/// What the node does with the tasks of its earlier runs.
extension Supervisor {
    /// Reads the records, makes sure that no worker of an earlier run is left, and puts the tasks that hadn't ended on
    /// their way again. Call it once, before the first dispatch.
    package func recover() async throws(SystemError) {
        let inventory = try await services.store.loadAll()
        corruptRecords = inventory.corrupt
        var unfinished: [TaskRecord] = []
        for record in inventory.records.sorted(by: { ($0.endedAt ?? .distantPast) < ($1.endedAt ?? .distantPast) }) {
            if record.state.isEnded { history[record.id] = TaskSummary(record) } else { unfinished.append(record) }
            owe(record)
            notePeak(record)
        }
        unfinished.sort { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }
        let attempts = unfinished.compactMap(\.attempts.last)
        await services.logLane.run { Supervisor.endSurvivors(attempts) }
        for record in unfinished { await resume(record) }
        wakeup.signal()
    }

    private func resume(_ record: TaskRecord) async {
        var machine = WorkerState(record: record, rules: settings.workerRules)
        machine.recover(now: services.ambient.now(), jitter: services.ambient.random())
        let file = LogFile(path: paths.log(of: record.id), limit: settings.logFileLimit)
        let lines = await services.logLane.run { file.countLines() }
        let worker = await makeWorker(for: machine, isSaved: machine.record == record, nextLine: lines + 1)
        records[record.id] = machine.record
        workers[record.id] = worker
        if machine.record.state.isEnded { await worker.settle() } else { queue.append(record.id) }
        own(worker)
    }

    /// Workers die with their server. Should one have survived, it's ended now: the very process of the record, by its pid
    /// and start time, and only if it's a worker's init, so that no stranger is ever killed.
    private static func endSurvivors(_ attempts: [Attempt]) {
        let deadline = cs_monotonic_ns() + 5_000_000_000
        for attempt in attempts where attempt.endedAt == nil {
            while let pid = attempt.pid, isSurvivor(pid, attempt), cs_monotonic_ns() < deadline {
                ProcessTree(root: pid).killOnce()
                _ = cs_kill(pid, SIGKILL)
                _ = poll(nil, 0, 5)
            }
        }
    }

    private static func isSurvivor(_ pid: Int32, _ attempt: Attempt) -> Bool {
        guard let start = attempt.processStart, ProcessIdentity.startTime(of: pid) == start,
            let arguments = try? Files.read("/proc/\(pid)/cmdline", limit: 4096)
        else { return false }
        return arguments.split(separator: 0).contains { $0.elementsEqual(WorkerInit.argument.utf8) }
    }
}
