import FoundationEssentials
import Glibc

/// The running side of a worker: its process, what it says, and the limits on how long it may say nothing.
extension WorkerActor {
    private static let heartbeatInterval = Duration.seconds(300)
    /// After this silence, what looked like the beginning of a secret is let out.
    private static let pieceDelay = Duration.seconds(1)

    func launch(_ mode: WorkerState.LaunchMode) throws(SystemError) {
        generation += 1
        let run = generation
        evidence = AgentEvidence(dialect: surroundings.settings.agent.dialect, repo: machine.record.spec.repo)
        let handlers = WorkerProcess.Handlers(
            output: { [weak self] bytes, source in self?.assumeIsolated { $0.received(bytes, from: source, run: run) }
            },
            report: { [weak self] report in self?.assumeIsolated { $0.reported(report, run: run) } },
            exit: { [self] exit in exited(exit, run: run) })
        log.observer = { [weak self] lines in self?.assumeIsolated { $0.observe(lines) } }
        let process = try WorkerProcess(
            order: WorkOrder(for: machine.record, mode: mode, in: surroundings), executable: services.executable,
            group: services.controlGroups.makeGroup(for: id, surroundings.settings.sandbox),
            on: services.loop, reaper: services.reaper, handlers: handlers)
        self.process = process
        let now = services.ambient.now()
        lastOutputAt = now
        let stamp = WorkerActor.timestamp(now)
        log.note("WRAPPER_STARTED task_id=\(id) attempt=\(machine.record.attempts.count) timestamp=\(stamp)")
        log.note("WORKER_STARTED task_id=\(id) pid=\(process.pid) host=\(WorkerActor.hostName) timestamp=\(stamp)")
        armLimits()
        armHeartbeat()
        apply(.launched(pid: process.pid, processStart: ProcessIdentity.startTime(of: process.pid)))
    }

    private func received(_ bytes: [UInt8], from source: TaskLog.Source, run: Int) {
        guard run == generation else { return }
        lastOutputAt = services.ambient.now()
        log.receive(bytes, from: source)
        if log.isHoldingPieces, timers[.pieces] == nil {
            arm(.pieces, after: WorkerActor.pieceDelay) { $0.log.endPieces(endsLine: false) }
        }
    }

    private func observe(_ lines: [UInt8]) { evidence.read(lines: lines) }

    private func reported(_ report: WorkerReport, run: Int) {
        guard run == generation else { return }
        switch report {
        case .phase(let phase): log.note("worker: \(WorkerActor.sentence(for: phase))")
        case .checkedOut(let branch, let base):
            log.note("worker: on branch \(branch)\(base.isEmpty ? "" : " at \(base.prefix(12))")")
        case .failed(_, let message, _): log.note("WORKER_DISPATCH_ERROR \(message)")
        case .use(let use): self.use = use
        case .note, .agentStarted, .agentExited, .work, .stopped: break
        }
        apply(.report(report))
    }

    private static func sentence(for phase: WorkerReport.Phase) -> String {
        switch phase {
        case .fetch: "fetching the repository"
        case .checkout: "making the worktree"
        case .agent: "starting the agent"
        }
    }

    private func exited(_ exit: ChildExit, run: Int) {
        guard run == generation else { return }
        for purpose in [TimerPurpose.idle, .runtime, .heartbeat, .pieces] { disarm(purpose) }
        process = nil
        use = ResourceUse()
        log.endPieces(endsLine: true)
        log.observer = nil
        apply(.exited(exit, evidence, jitter: services.ambient.random()))
    }

    private static let hostName: String = {
        var bytes = [CChar](repeating: 0, count: 256)
        guard unsafe gethostname(&bytes, bytes.count - 1) == 0 else { return "unknown" }
        return String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }()

    // MARK: Limits

    func armLimits() {
        armIdle()
        armRuntime()
    }

    private func armIdle() {
        guard surroundings.settings.idleTimeout > .zero else { return disarm(.idle) }
        let silence = Duration.seconds(services.ambient.now().timeIntervalSince(lastOutputAt))
        arm(.idle, after: max(.zero, surroundings.settings.idleTimeout - silence)) { worker in
            let limit = worker.surroundings.settings.idleTimeout
            let silence = Duration.seconds(worker.services.ambient.now().timeIntervalSince(worker.lastOutputAt))
            guard silence >= limit else { return worker.armIdle() }
            worker.reachLimit("the worker printed nothing for \(limit.words)")
        }
    }

    private func armRuntime() {
        guard surroundings.settings.maxRuntime > .zero, let started = machine.record.attempts.last?.startedAt else {
            return disarm(.runtime)
        }
        let elapsed = Duration.seconds(services.ambient.now().timeIntervalSince(started))
        arm(.runtime, after: max(.zero, surroundings.settings.maxRuntime - elapsed)) { worker in
            worker.reachLimit(
                "the worker ran for \(worker.surroundings.settings.maxRuntime.words), the most that it may")
        }
    }

    private func reachLimit(_ sentence: String) {
        log.note("worker: \(sentence); ending it")
        apply(.stop(.limit(sentence)))
    }

    private func armHeartbeat() {
        arm(.heartbeat, after: WorkerActor.heartbeatInterval) { worker in
            worker.log.note("HEARTBEAT: \(WorkerActor.timestamp(worker.services.ambient.now()))")
            worker.armHeartbeat()
        }
    }
}

// MARK: - The log, from outside

extension WorkerActor {
    /// The lines behind number `sequence`, and whether the log ends with them or with lines that are there already.
    package func read(after sequence: UInt64, limit: Int) -> (lines: LogBuffer.Lines, hasEnded: Bool) {
        (log.buffer.lines(after: sequence, limit: limit), isSettled)
    }

    var logFigures: LogFigures { log.figures }

    package func lastLines(_ limit: Int) -> LogBuffer.Lines { log.buffer.last(limit) }

    /// Signals `wakeup` at every new line and at the end.
    package func follow(_ wakeup: Wakeup) { log.follow(wakeup) }
    package func unfollow(_ wakeup: Wakeup) { log.unfollow(wakeup) }
}

extension Duration {
    /// For people: `30 minutes`, `90 seconds`.
    package var words: String {
        let whole = Int(seconds.rounded())
        return whole >= 120 && whole % 60 == 0 ? "\(whole / 60) minutes" : "\(whole) seconds"
    }
}
