package import FoundationEssentials

/// The root of the supervision tree: it admits tasks, owns their workers, and is the only one that the outside talks to.
///
/// A task occupies a slot from its admission until its processes are gone, also while it waits for its next attempt.
package actor Supervisor {
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe services.loop.asUnownedSerialExecutor() }
    package nonisolated let services: WorkerServices
    package nonisolated let paths: NodePaths

    var settings: NodeSettings
    let environment: [String: String]
    /// All tasks that haven't ended, and those that have but aren't stored yet.
    var workers: [String: WorkerActor] = [:]
    var records: [String: TaskRecord] = [:]
    var history: [String: TaskSummary] = [:]
    /// Tasks that wait for a slot, the first first.
    var queue: [String] = []
    /// Tasks that have a slot but no process yet, because their record is being stored.
    var reserved: Set<String> = []
    var corruptRecords: [String] = []
    var feed = EventFeed()
    package internal(set) var counters = NodeCounters()
    /// Of the logs of tasks that have ended.
    private var endedLogs = LogFigures()
    var keptWorktrees: [String] = []
    var disk: DiskReading?
    /// What the newest ended tasks took at most.
    var peaksMB: [Int] = []
    /// Worktrees that are being read for somebody.
    var changeReaders = 0
    /// Why the last write of a record failed; it's tried again until it works.
    var storageFault: SystemError?
    package private(set) var isDraining = false
    private var newWorkers: [WorkerActor] = []
    private var lastCreation = Date.distantPast
    let wakeup: Wakeup
    private let filesBell: Wakeup
    let noticeBell: Wakeup
    /// Tasks whose end somebody is still to be told, and when that is tried next.
    var owedNotices: [String: Date] = [:]
    /// What is posted.
    let noticeBody: @Sendable (TaskRecord, Date) -> [UInt8]
    let startedAt: Date

    /// How often a task that waits for memory is looked at again.
    private static let queueRetry = Duration.seconds(2)
    /// Of the ten seconds that Cloudron gives: when the rest is killed, and when the storage is given up.
    private static let drainGrace = Duration.seconds(6)
    private static let drainLimit = Duration.milliseconds(8500)

    package init(
        services: WorkerServices, paths: NodePaths, settings: NodeSettings, environment: [String: String],
        noticeBody: @escaping @Sendable (TaskRecord, Date) -> [UInt8]
    ) {
        self.services = services
        self.paths = paths
        self.settings = settings
        self.environment = environment
        wakeup = Wakeup(on: services.loop)
        filesBell = Wakeup(on: services.loop)
        noticeBell = Wakeup(on: services.loop)
        self.noticeBody = noticeBody
        startedAt = services.ambient.now()
    }

    // MARK: Life

    /// Runs the workers until the node has been drained.
    package func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask(executorPreference: services.loop) { [self] in await lookAfterFiles() }
            group.addTask(executorPreference: services.loop) { [self] in await deliverNotices() }
            while !(isDraining && workers.isEmpty) {
                await wakeup.wait(timeout: queue.isEmpty || isDraining ? nil : Supervisor.queueRetry)
                for worker in newWorkers {
                    group.addTask(executorPreference: services.loop) { [self] in
                        await worker.run()
                        await ended(worker)
                    }
                }
                newWorkers = []
                await admitWaiting()
            }
        }
    }

    /// Keeps house from time to time, and tries storage that failed.
    private func lookAfterFiles() async {
        while !isDraining {
            // What has had its time may be just what takes the space.
            await keepHouse()
            if storageFault != nil { await probeStorage() }
            if isDraining { return }
            await filesBell.wait(
                timeout: storageFault == nil ? Supervisor.housekeepingInterval : Supervisor.storageProbeInterval)
        }
    }

    private func storageFailed(_ fault: SystemError) {
        storageFault = fault
        filesBell.signal()
    }

    /// Stops taking tasks, ends the workers and records them as interrupted; `run` returns once all is done, within ten
    /// seconds.
    package func drain() async {
        guard !isDraining else { return await hurry() }
        isDraining = true
        filesBell.signal()
        noticeBell.signal()
        _ = services.loop.schedule(after: Supervisor.drainGrace) { [self] in
            assumeIsolated { supervisor in
                for worker in supervisor.workers.values { worker.assumeIsolated { $0.hurry() } }
            }
        }
        _ = services.loop.schedule(after: Supervisor.drainLimit) { [self] in
            assumeIsolated { supervisor in
                for worker in supervisor.workers.values { worker.assumeIsolated { $0.giveUpStoring() } }
            }
        }
        for worker in workers.values { await worker.stop(.nodeStops) }
        wakeup.signal()
    }

    private func hurry() async {
        for worker in workers.values { await worker.hurry() }
    }

    package func apply(_ settings: NodeSettings) async {
        self.settings = settings
        for worker in workers.values { await worker.update(settings) }
        wakeup.signal()
    }

    /// What went through all logs since the start.
    package func logFigures() async -> LogFigures {
        var sum = endedLogs
        for worker in workers.values { sum = sum + (await worker.logFigures) }
        return sum
    }

    private func ended(_ worker: WorkerActor) async {
        let record = await worker.record
        endedLogs = endedLogs + (await worker.logFigures)
        workers[worker.id] = nil
        records[worker.id] = nil
        queue.removeAll { $0 == worker.id }
        if record.state.isEnded { history[worker.id] = TaskSummary(record) }
        owe(record)
        notePeak(record)
        wakeup.signal()
    }

    func notePeak(_ record: TaskRecord) {
        guard record.state.isEnded, let peak = record.attempts.compactMap(\.peakMemoryMB).max(), peak > 0 else {
            return
        }
        if peaksMB.count >= CapacityAdvice.mostTasks { peaksMB.removeFirst() }
        peaksMB.append(peak)
    }

    func changed(_ record: TaskRecord) {
        let old = records[record.id]
        records[record.id] = record
        counters.count(record, after: old)
        if old?.state != record.state || old?.reason != record.reason { feed.append(record) }
        if record.state != .queued && record.state != .interrupted { queue.removeAll { $0 == record.id } }
        wakeup.signal()
    }

    // MARK: Admission

    var occupied: Int {
        records.values.count { record in
            switch record.state {
            case .preparing, .running, .stopping, .restarting: true
            case .queued, .interrupted: reserved.contains(record.id)
            case .succeeded, .failed, .cancelled, .timedOut: false
            }
        }
    }

    /// Why no worker can be started now.
    private func obstacle() -> DispatchRefusal? {
        let active = occupied
        guard active < settings.maxConcurrent else { return .noSlot(active: active, max: settings.maxConcurrent) }
        // Workers that still prepare will want their memory soon.
        let promised = records.values.count { $0.state == .preparing || reserved.contains($0.id) }
        let needed = settings.memoryPerWorkerMB * (promised + 1) + settings.memoryReserveMB
        let available = MemoryReading.now().availableMB
        guard available >= needed else {
            return .noMemory(active: active, max: settings.maxConcurrent, availableMB: available, neededMB: needed)
        }
        return nil
    }

    private func admitWaiting() async {
        while !isDraining, sandbox.refusal == nil, let id = queue.first, obstacle() == nil, let worker = workers[id] {
            queue.removeFirst()
            await worker.admit()
        }
    }

    /// Takes a task: once this returns, neither a crash nor a power loss forgets it.
    package func dispatch(_ request: DispatchRequest) async throws(DispatchRefusal) -> DispatchReceipt {
        do throws(DispatchRefusal) {
            let receipt = try await take(request)
            counters.dispatched += 1
            return receipt
        } catch {
            counters.refused += 1
            throw error
        }
    }

    private func take(_ request: DispatchRequest) async throws(DispatchRefusal) -> DispatchReceipt {
        let id = request.id ?? "task-" + Names.randomHex(digits: 12)
        guard !isDraining else { throw .draining }
        if let refusal = sandbox.refusal { throw .unavailable(refusal) }
        guard settings.allows(repo: request.repo) else { throw .repoNotAllowed(request.repo) }
        if let url = request.callbackURL, !settings.allows(callback: url) { throw .callbackNotAllowed(url) }
        guard workers[id] == nil else { throw .alreadyActive(id: id) }
        let obstacle = obstacle()
        if let obstacle { try checkQueue(obstacle) }
        let waits = obstacle != nil || !queue.isEmpty
        var record = TaskRecord(
            spec: spec(for: request, id: id), state: .queued, reason: "waiting for a slot",
            createdAt: services.ambient.now())
        // From here on the id and the slot are taken.
        records[id] = record
        if !waits { reserved.insert(id) }
        defer { reserved.remove(id) }
        let worker: WorkerActor
        do throws(DispatchRefusal) {
            try await adopt(&record, from: request.continueTask)
            let machine = WorkerState(record: record, rules: settings.workerRules)
            worker = await makeWorker(for: machine, isSaved: false, nextLine: 1)
            workers[id] = worker
            if history[id] != nil { await startLogOver(id) }
            try await store(worker)
        } catch {
            forget(id)
            throw error
        }
        history[id] = nil
        return try await begin(worker, waits: waits)
    }

    /// Starts the worker of a stored task, or puts it into the queue.
    private func begin(_ worker: WorkerActor, waits: Bool) async throws(DispatchRefusal) -> DispatchReceipt {
        let id = worker.id
        let repo = records[id]?.spec.repo ?? ""
        if isDraining {
            await discard(worker)
            throw .draining
        }
        // A DELETE may have come during the write.
        guard records[id]?.state == .queued else {
            own(worker)
            return DispatchReceipt(id: id, repo: repo)
        }
        if waits {
            queue.append(id)
            own(worker)
            return DispatchReceipt(id: id, repo: repo, position: queue.count)
        }
        do throws(SystemError) {
            let pid = try await worker.start()
            own(worker)
            return DispatchReceipt(id: id, repo: repo, pid: pid)
        } catch {
            await discard(worker)
            throw .unavailable("the worker could not be started: \(error)")
        }
    }

    private func checkQueue(_ obstacle: DispatchRefusal) throws(DispatchRefusal) {
        guard settings.autoAccept else { throw obstacle }
        guard queue.count < settings.queueLimit else {
            throw .queueFull(active: occupied, max: settings.maxConcurrent, limit: settings.queueLimit)
        }
    }

    /// The time now, later than that of every task before, so that the order of tasks survives in their records.
    private func nextCreation() -> Date {
        lastCreation = max(services.ambient.now(), lastCreation.addingTimeInterval(0.001))
        return lastCreation
    }

    private func spec(for request: DispatchRequest, id: String) -> TaskSpec {
        var spec = TaskSpec(
            id: id, repo: request.repo, prompt: request.prompt, model: request.model ?? settings.defaultModel,
            branch: request.branch)
        spec.restart = request.restart
        spec.continueTask = request.continueTask
        spec.callbackURL = request.callbackURL
        spec.baseBranch = request.baseBranch
        spec.issue = request.issue
        return spec
    }

    /// Takes over the worktree and the session of an earlier task.
    private func adopt(_ record: inout TaskRecord, from earlierID: String?) async throws(DispatchRefusal) {
        guard let earlierID else { return }
        guard earlierID != record.id, records[earlierID]?.state.isEnded != false else {
            throw .cannotContinue("task \(earlierID) is still active; continue it once it has ended")
        }
        guard let earlier = await self.record(of: earlierID) else {
            throw .cannotContinue("there is no task \(earlierID) on this node (any more)")
        }
        guard earlier.spec.repo == record.spec.repo else {
            throw .cannotContinue("task \(earlierID) worked on \(earlier.spec.repo), not on \(record.spec.repo)")
        }
        let owner = earlier.spec.continueTask ?? earlier.id
        let isInUse = records.values.contains {
            $0.id != record.id && ($0.spec.continueTask ?? $0.id) == owner && !$0.state.isEnded
        }
        guard !isInUse else {
            throw .cannotContinue("another task is at work in the worktree of task \(earlierID)")
        }
        let worktree = paths.taskFolder(of: owner) + "/worktree/.git"
        guard await services.logLane.run({ Files.exists(worktree) }) else {
            throw .cannotContinue("the worktree of task \(earlierID) is gone (see retention.worktree_hours)")
        }
        record.spec.continueTask = owner
        record.sessionID = earlier.sessionID
        record.checkedOutBranch = earlier.checkedOutBranch
        records[record.id] = record
    }

    func makeWorker(for machine: WorkerState, isSaved: Bool, nextLine: UInt64) async -> WorkerActor {
        WorkerActor(
            machine: machine, isSaved: isSaved, nextLine: nextLine, services: services,
            surroundings: WorkerSurroundings(paths: paths, settings: settings, environment: environment),
            onChange: { [weak self] record in self?.assumeIsolated { $0.changed(record) } },
            onStorageFailure: { [weak self] failure in self?.assumeIsolated { $0.storageFailed(failure) } })
    }

    private func startLogOver(_ id: String) async {
        let file = LogFile(path: paths.log(of: id), limit: settings.logFileLimit)
        await services.logLane.run { file.startOver() }
    }

    private func store(_ worker: WorkerActor) async throws(DispatchRefusal) {
        do throws(SystemError) {
            try await worker.saveFirst()
        } catch {
            storageFailed(error)
            throw .unavailable("the task could not be stored: \(error)")
        }
    }

    private func discard(_ worker: WorkerActor) async {
        try? await services.store.remove(worker.id)
        forget(worker.id)
    }

    private func forget(_ id: String) {
        workers[id] = nil
        records[id] = nil
        wakeup.signal()
    }

    /// Makes the worker a child of the tree.
    func own(_ worker: WorkerActor) {
        newWorkers.append(worker)
        wakeup.signal()
    }

    // MARK: Cancel

    /// Begins to end a task. A crash after this doesn't bring it back (unless its storage fails just now: it's ended all the
    /// same).
    /// - Returns: false when no such task is active.
    package func cancel(_ id: String) async -> Bool {
        guard let worker = workers[id], records[id]?.state.isEnded == false else { return false }
        await worker.stop(.cancelled)
        try? await services.store.save(await worker.record)
        return true
    }
}
