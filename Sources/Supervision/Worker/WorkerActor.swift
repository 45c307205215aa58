package import FoundationEssentials
import Glibc

/// Where time and chance come from.
package struct Ambient: Sendable {
    package var now: @Sendable () -> Date
    /// 0 ..< 1.
    package var random: @Sendable () -> Double

    package init(
        now: @escaping @Sendable () -> Date = { Date() },
        random: @escaping @Sendable () -> Double = { Double.random(in: 0..<1) }
    ) {
        self.now = now
        self.random = random
    }
}

/// What the workers of a node share.
package struct WorkerServices: Sendable {
    package let loop: EventLoop
    package let reaper: Reaper
    package let store: TaskStore
    package let logLane: BlockingLane
    /// For long work on files, which nothing else should wait behind.
    package let files: BlockingLane
    package let controlGroups: ControlGroups
    package let ambient: Ambient
    /// The path of this program, for `worker-init`.
    package let executable: String

    package init(
        loop: EventLoop, reaper: Reaper, store: TaskStore, logLane: BlockingLane, files: BlockingLane,
        controlGroups: ControlGroups, ambient: Ambient, executable: String
    ) {
        self.loop = loop
        self.reaper = reaper
        self.store = store
        self.logLane = logLane
        self.files = files
        self.controlGroups = controlGroups
        self.ambient = ambient
        self.executable = executable
    }
}

/// Supervises one task: holds its process, its log and its state, and carries out what its state machine decides.
package actor WorkerActor {
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe services.loop.asUnownedSerialExecutor() }
    package nonisolated let id: String

    let services: WorkerServices
    var surroundings: WorkerSurroundings
    var machine: WorkerState
    let log: TaskLog
    var process: WorkerProcess?
    var evidence: AgentEvidence
    /// Which attempt the callbacks belong to: one that comes late finds another number here.
    var generation = 0
    var timers: [TimerPurpose: EventLoop.TimerToken] = [:]
    var lastOutputAt: Date
    /// What its processes take now.
    package internal(set) var use = ResourceUse()
    /// Told, on the loop, of every change of the record.
    private let onChange: @Sendable (TaskRecord) -> Void
    private let onStorageFailure: @Sendable (SystemError) -> Void
    private let changed: Wakeup
    private var isSaved: Bool
    private var isSaving = false
    private(set) var hasEnded = false
    private(set) var storageFailure: SystemError?
    /// The storage must not keep the node from ending.
    private var givesUpStoring = false

    enum TimerPurpose: Hashable { case idle, runtime, heartbeat, backoff, pieces }

    /// How long a failed write waits for its next try.
    private static let storageRetry = Duration.seconds(1)

    /// - Parameters:
    ///   - isSaved: whether the record is on disk as it is.
    ///   - nextLine: the number of the next log line.
    package init(
        machine: WorkerState, isSaved: Bool, nextLine: UInt64, services: WorkerServices,
        surroundings: WorkerSurroundings,
        onChange: @escaping @Sendable (TaskRecord) -> Void,
        onStorageFailure: @escaping @Sendable (SystemError) -> Void
    ) {
        let record = machine.record
        id = record.id
        self.services = services
        self.surroundings = surroundings
        self.isSaved = isSaved
        self.onChange = onChange
        self.onStorageFailure = onStorageFailure
        self.machine = machine
        log = TaskLog(
            file: LogFile(path: surroundings.paths.log(of: record.id), limit: surroundings.settings.logFileLimit),
            lane: services.logLane, secrets: SecretSet(surroundings.settings.secrets), next: nextLine)
        evidence = AgentEvidence(dialect: surroundings.settings.agent.dialect, repo: record.spec.repo)
        lastOutputAt = record.createdAt
        changed = Wakeup(on: services.loop)
    }

    package var record: TaskRecord {
        var record = machine.record
        record.logLines = log.buffer.next - 1
        return record
    }

    /// Whether the task has ended and its log and record are on disk, or can't be brought there for now: who is told of the
    /// end then finds all of it, wherever it's read from.
    var isSettled: Bool {
        let isStored = isSaved && !isSaving && !log.hasPending
        return hasEnded && (isStored || storageFailure != nil || givesUpStoring)
    }

    // MARK: Life

    /// Starts the first attempt now.
    /// - Returns: the worker's process id.
    /// - Throws: what kept it from starting; then nothing of it is left, and this actor is of no more use.
    package func start() throws(SystemError) -> Int32 {
        let actions = machine.handle(.admitted, now: services.ambient.now())
        for case .launch(let mode) in actions { try launch(mode) }
        publish()
        return process?.pid ?? -1
    }

    /// Starts the next attempt of a task that waited; what keeps it from starting is a reason to try again.
    package func admit() { apply(.admitted) }

    package func stop(_ cause: WorkerState.StopCause) { apply(.stop(cause)) }

    /// Cuts the grace period of a stop short.
    package func hurry() { if machine.record.state == .stopping { process?.kill() } }

    /// Stops trying to store what can't be stored.
    package func giveUpStoring() {
        givesUpStoring = true
        changed.signal()
    }

    package func update(_ settings: NodeSettings) {
        if settings.secrets != surroundings.settings.secrets { log.redact(SecretSet(settings.secrets)) }
        surroundings.settings = settings
        machine.rules = settings.workerRules
        if process != nil { armLimits() }
    }

    /// For a task that needs no more than its last words and its record stored.
    package func settle() { finish() }

    /// Saves the record before anything is started for it.
    package func saveFirst() async throws(SystemError) {
        try await services.store.save(record)
        isSaved = true
    }

    /// Keeps the record and the log file up to date until the task has ended and both are on disk.
    package func run() async {
        log.onPending = { [changed] in changed.signal() }
        changed.signal()
        while true {
            await changed.wait(timeout: storageFailure == nil ? nil : WorkerActor.storageRetry)
            await storeAll()
            if hasEnded && (givesUpStoring || (isSaved && !log.hasPending)) { break }
        }
        log.wakeFollowers()
    }

    private func storeAll() async {
        var failure = await log.store()
        if !isSaved {
            (isSaved, isSaving) = (true, true)  // a change during the write makes the first false again
            defer { isSaving = false }
            do throws(SystemError) {
                try await services.store.save(record)
            } catch {
                isSaved = false
                failure = error
            }
        }
        if givesUpStoring { log.abandonPending() }
        if let failure, storageFailure == nil { onStorageFailure(failure) }
        storageFailure = failure
        // Followers of an ended task wait for its last words only.
        if isSettled { log.wakeFollowers() }
    }

    // MARK: Deciding and doing

    func apply(_ event: WorkerState.Event) {
        let before = machine.record
        for action in machine.handle(event, now: services.ambient.now()) { perform(action) }
        if machine.record != before { publish() }
    }

    private func publish() {
        isSaved = false
        changed.signal()
        onChange(record)
    }

    private func perform(_ action: WorkerState.Action) {
        switch action {
        case .launch(let mode):
            do throws(SystemError) {
                try launch(mode)
            } catch {
                log.note("WORKER_DISPATCH_ERROR \(error)")
                apply(.launchFailed(error.description))
            }
        case .endProcess: process?.end(grace: surroundings.settings.cancelGrace)
        case .killProcess: process?.kill()
        case .backOff(let delay): backOff(delay)
        case .note(let text): log.note(text)
        case .end: finish()
        }
    }

    private func backOff(_ delay: Duration) {
        let next = machine.record.attempts.count + 1
        log.note("worker: \(machine.record.reason); attempt \(next) in \(Int(delay.seconds.rounded(.up))) s")
        arm(.backoff, after: delay) { $0.apply(.backoffOver) }
    }

    private func finish() {
        for purpose in timers.keys { disarm(purpose) }
        log.endPieces(endsLine: true)
        let record = machine.record
        log.note("worker: \(record.state.rawValue): \(record.reason)")
        log.note("[EXIT:\(WorkerActor.exitNumber(of: record))] \(WorkerActor.timestamp(services.ambient.now()))")
        hasEnded = true
        isSaved = false
        changed.signal()
    }

    /// The number that the log's last line gives, in the shell's convention.
    private static func exitNumber(of record: TaskRecord) -> Int32 {
        switch record.state {
        case .succeeded: 0
        case .timedOut: 124
        case .cancelled, .interrupted: 128 + SIGTERM
        default: record.signal.map { 128 + $0 } ?? record.exitCode.map { $0 == 0 ? 1 : $0 } ?? 1
        }
    }

    static func timestamp(_ date: Date) -> String { date.formatted(.iso8601) }

    // MARK: Timers

    func arm(_ purpose: TimerPurpose, after delay: Duration, _ body: @escaping @Sendable (isolated WorkerActor) -> Void)
    {
        disarm(purpose)
        timers[purpose] = services.loop.schedule(after: delay) { [weak self] in
            self?.assumeIsolated { worker in
                worker.timers[purpose] = nil
                body(worker)
            }
        }
    }

    func disarm(_ purpose: TimerPurpose) {
        if let token = timers.removeValue(forKey: purpose) { services.loop.cancel(token) }
    }
}
