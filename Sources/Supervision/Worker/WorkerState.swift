package import FoundationEssentials

/// The life of one task as a pure value: events go in, actions come out, and the record says at every instant where the
/// task is. It does no I/O and reads no clock; its owner carries out the actions and saves the record when it changed.
package struct WorkerState: Sendable {
    /// Why a worker is told to end.
    package enum StopCause: Sendable, Equatable {
        case cancelled
        /// The node stops; the task may go on when it starts again.
        case nodeStops
        /// A limit of time was reached; with the sentence that says which.
        case limit(String)
        /// The worker takes more than it may; with the sentence that says what.
        case quota(String)
    }

    /// How the next attempt begins.
    package enum LaunchMode: Sendable, Equatable {
        /// In a clean worktree, with the task's prompt.
        case fresh
        /// In the worktree as it is, going on in the agent's session if there is one, with this prompt.
        case goOn(prompt: String)
    }

    package enum Event: Sendable {
        /// There is a slot for it.
        case admitted
        case launched(pid: Int32, processStart: UInt64?)
        case launchFailed(String)
        case report(WorkerReport)
        case stop(StopCause)
        /// The worker's process has ended and was waited for. `jitter` is 0 ..< 1.
        case exited(ChildExit, AgentEvidence, jitter: Double)
        case backoffOver
    }

    package enum Action: Sendable, Equatable {
        case launch(LaunchMode)
        /// Begin the cancel policy: TERM now, KILL after the grace period.
        case endProcess
        /// KILL now: what takes too much gets no time to take more.
        case killProcess
        /// Send `backoffOver` after this time.
        case backOff(Duration)
        case note(String)
        /// Nothing more will come.
        case end
    }

    /// What is known of the attempt that runs.
    private struct Run: Sendable {
        var mode: LaunchMode
        var failure: (phase: WorkerReport.Phase, message: String, isTransient: Bool)?
        var agentExit: ChildExit.Status?
        var stopCause: StopCause?
        /// The most memory that all its processes had together.
        var peakMemoryKB = 0
    }

    package struct Rules: Sendable, Equatable {
        package var restart = RestartPolicy()
        /// How often a session is continued that stopped with nothing to show for it.
        package var maxContinuations = 2
        /// Whether the agent can go on in a session.
        package var canResume = false
        package var quotas = Quotas()
        /// Who is told of every task's end; empty: nobody.
        package var noticeURL = ""

        package init() {}
    }

    package private(set) var record: TaskRecord
    package var rules: Rules
    private var run: Run?
    /// How the attempt begins that is waited for.
    private var nextMode = LaunchMode.fresh

    package static let resumePrompt =
        "You were interrupted. Look at the state of the working tree, and go on with the task where you left off."
    package static let continuePrompt =
        "Go on with the task until it is done: commit, push, and open a pull request if the task asks for one. Then end with "
        + "a line that says only TASK_COMPLETE, or, if you can't go on, with BLOCKED: and the reason."

    package init(record: TaskRecord, rules: Rules) {
        self.record = record
        self.rules = rules
        if record.spec.continueTask != nil, record.attempts.isEmpty { nextMode = .goOn(prompt: record.spec.prompt) }
    }

    package var hasProcess: Bool {
        run != nil && record.attempts.last?.pid != nil && record.attempts.last?.endedAt == nil
    }

    package mutating func handle(_ event: Event, now: Date) -> [Action] {
        switch (event, record.state) {
        case (.admitted, .queued), (.admitted, .interrupted), (.backoffOver, .restarting): return launch(now)
        case (.launched(let pid, let start), _):
            record.attempts[record.attempts.count - 1].pid = pid
            record.attempts[record.attempts.count - 1].processStart = start
            // A stop that came while it was being started is obeyed now.
            return run?.stopCause == nil ? [] : [.endProcess]
        case (.report(.use(let use)), _): return take(use, now)
        case (.launchFailed(let message), _):
            return fail("the worker could not be started: \(message)", .interruption, now, jitter: 0.5)
        case (.report(let report), _): return take(report)
        case (.stop(let cause), _): return stop(cause, now)
        case (.exited(let exit, let evidence, let jitter), _): return conclude(exit, evidence, now, jitter)
        case (.admitted, _), (.backoffOver, _): return []
        }
    }

    private mutating func launch(_ now: Date) -> [Action] {
        record.attempts.append(Attempt(number: record.attempts.count + 1, startedAt: now))
        record.state = .preparing
        record.reason = "preparing the workspace"
        run = Run(mode: nextMode)
        return [.launch(nextMode)]
    }

    private mutating func take(_ report: WorkerReport) -> [Action] {
        guard run != nil else { return [] }
        switch report {
        case .phase(let phase): record.attempts[record.attempts.count - 1].phase = phase
        case .note(let text): return [.note(text)]
        case .checkedOut(let branch, let base):
            record.checkedOutBranch = branch
            if record.base == nil || record.base == "" { record.base = base }
        case .agentStarted:
            guard record.state == .preparing else { return [] }
            record.state = .running
            record.reason = "the agent runs"
        case .failed(let phase, let message, let isTransient): run?.failure = (phase, message, isTransient)
        case .agentExited(let status): run?.agentExit = status
        case .work(let work): record.work = work
        case .stopped, .use: break
        }
        return []
    }

    private mutating func take(_ use: ResourceUse, _ now: Date) -> [Action] {
        if let peak = run?.peakMemoryKB { run?.peakMemoryKB = max(peak, use.memoryKB) }
        guard let sentence = rules.quotas.exceeded(by: use) else { return [] }
        return stop(.quota(sentence), now)
    }

    private mutating func stop(_ cause: StopCause, _ now: Date) -> [Action] {
        switch record.state {
        case .queued, .interrupted, .restarting:
            switch cause {
            case .cancelled: return end(.cancelled, "cancelled before it ran", now)
            case .nodeStops:
                if record.state == .restarting { record.state = .interrupted }
                return [.end]
            case .limit, .quota: return []
            }
        case .preparing, .running:
            record.state = .stopping
            switch cause {
            case .cancelled: record.reason = "being cancelled"
            case .nodeStops: record.reason = "the node is stopping"
            case .limit(let sentence), .quota(let sentence): record.reason = sentence
            }
            run?.stopCause = cause
            guard hasProcess else { return [] }
            if case .quota(let sentence) = cause { return [.note("worker: \(sentence); ending it"), .killProcess] }
            return [.endProcess]
        case .stopping:
            // A cancel rules over what else it was being stopped for: it must not start again.
            if cause == .cancelled { run?.stopCause = .cancelled }
            return []
        case .succeeded, .failed, .cancelled, .timedOut: return []
        }
    }
}

// MARK: - The end of an attempt

extension WorkerState {
    private mutating func conclude(
        _ exit: ChildExit, _ evidence: AgentEvidence, _ now: Date, _ jitter: Double
    ) -> [Action] {
        guard let run else { return [] }
        note(exit, run.agentExit, evidence, now)
        // An agent that was done before the stop reached it is judged by what it did, unless it was cancelled.
        switch run.stopCause {
        case .cancelled: return end(.cancelled, "cancelled", now)
        case .nodeStops where run.agentExit == nil: return interrupt(now)
        case .limit(let sentence) where run.agentExit == nil: return end(.timedOut, sentence, now)
        case .quota(let sentence) where run.agentExit == nil:
            record.outcome = .overQuota
            return end(.failed, sentence, now)
        case nil, .nodeStops, .limit, .quota: break
        }
        if let failure = run.failure {
            let reason = "\(failure.phase.rawValue): \(failure.message)"
            return fail(reason, failure.isTransient ? .interruption : .failure, now, jitter: jitter)
        }
        switch run.agentExit {
        case .exited(0): return judge(evidence, now, jitter)
        case .exited(let code):
            return fail(told(by: evidence) ?? "the agent exited with code \(code)", .failure, now, jitter: jitter)
        case .signalled(let signal):
            let killed = signal == 9
            return fail(
                killed
                    ? "the agent was killed (signal 9): most likely memory ran out"
                    : "the agent died of signal \(signal)",
                killed ? .interruption : .failure, now, jitter: jitter)
        case nil:
            return fail("the worker's process ended unexpectedly (\(exit.status))", .interruption, now, jitter: jitter)
        }
    }

    /// Writes what is known of the attempt's end into the record.
    private mutating func note(
        _ exit: ChildExit, _ agentExit: ChildExit.Status?, _ evidence: AgentEvidence, _ now: Date
    ) {
        let last = record.attempts.count - 1
        record.attempts[last].endedAt = now
        record.attempts[last].userSeconds = exit.userTime.seconds
        record.attempts[last].systemSeconds = exit.systemTime.seconds
        // The kernel tells the largest process', the init what it saw of all together.
        record.attempts[last].peakMemoryMB = max(Int(exit.peakMemoryKB), run?.peakMemoryKB ?? 0) / 1024
        switch agentExit ?? exit.status {
        case .exited(let code): if agentExit != nil { record.attempts[last].exitCode = code }
        case .signalled(let signal): record.attempts[last].signal = signal
        }
        if let session = evidence.sessionID { record.sessionID = session }
        if !evidence.usage.isEmpty { record.usage = (record.usage ?? Usage()) + evidence.usage }
        if let link = evidence.pullRequest { record.pullRequest = link }
    }

    private func told(by evidence: AgentEvidence) -> String? {
        evidence.failure.map { failure in
            let kind =
                failure.provider.map { "the model's provider answered \($0.rawValue)" } ?? "the agent reported an error"
            return failure.message.isEmpty ? kind : "\(kind): \(failure.message)"
        }
    }

    private mutating func judge(_ evidence: AgentEvidence, _ now: Date, _ jitter: Double) -> [Action] {
        if evidence.result == false || evidence.failure != nil {
            return fail(told(by: evidence) ?? "the agent says that it failed", .failure, now, jitter: jitter)
        }
        let outcome = outcome(of: evidence)
        record.outcome = outcome
        switch outcome {
        case .complete: return end(.succeeded, "the agent says that the task is complete", now)
        case .pullRequest: return end(.succeeded, "a pull request was opened or merged", now)
        case .pushed: return end(.succeeded, "commits were pushed", now)
        case .blocked: return end(.failed, "the agent says that it is blocked", now)
        case .unpushed, .noEffect, .premature, .overQuota: break
        }
        if rules.canResume, record.sessionID != nil, record.continuations < rules.maxContinuations,
            run?.stopCause == nil
        {
            record.continuations += 1
            nextMode = .goOn(prompt: WorkerState.continuePrompt)
            return wait(.zero, "the agent stopped early; its session is continued", now)
        }
        switch outcome {
        case .unpushed: return end(.succeeded, "the agent ended with work that isn't pushed", now)
        case .noEffect: return end(.succeeded, "the agent ended without printing or changing anything", now)
        default:
            return end(.succeeded, "the agent ended without saying that the task is done, and changed nothing", now)
        }
    }

    private func outcome(of evidence: AgentEvidence) -> TaskOutcome {
        if evidence.marker == .blocked { return .blocked }
        if evidence.sawPullRequest { return .pullRequest }
        if evidence.marker != nil { return .complete }
        let work = record.work
        if evidence.sawPush || (work.map { $0.commits > 0 && $0.unpushedCommits == 0 } ?? false) { return .pushed }
        if let work, work.commits > 0 || work.hasUncommittedChanges { return .unpushed }
        return evidence.printedAnything ? .premature : .noEffect
    }

    private mutating func fail(_ reason: String, _ cause: RestartPolicy.Cause, _ now: Date, jitter: Double) -> [Action]
    {
        record.attempts[record.attempts.count - 1].reason = reason
        record.attempts[record.attempts.count - 1].endedAt = now
        let policy = record.spec.restart ?? rules.restart
        switch run?.stopCause {
        case .cancelled: return end(.cancelled, "cancelled", now)
        case .nodeStops, .limit, .quota: return end(.failed, reason, now)
        case nil: break
        }
        switch policy.decide(after: cause, restarts: record.restarts, now: now, jitter: jitter) {
        case .notCovered: return end(.failed, reason, now)
        case .exhausted:
            return end(
                .failed,
                "\(reason) (attempt \(record.attempts.count); the limit of \(policy.maxRestarts) restarts in "
                    + "\(policy.windowSeconds) s is reached)", now)
        case .restart(let delay):
            record.restarts.append(now)
            nextMode = goesOn ? .goOn(prompt: WorkerState.resumePrompt) : .fresh
            return wait(delay, reason, now)
        }
    }

    /// Whether the next attempt goes on where the last one ended.
    private var goesOn: Bool {
        if record.spec.continueTask != nil { return true }
        return rules.canResume && record.sessionID != nil && record.checkedOutBranch != nil
    }

    private mutating func interrupt(_ now: Date) -> [Action] {
        run = nil
        record.attempts[record.attempts.count - 1].reason = "the node stopped"
        record.state = .interrupted
        record.reason = "the node stopped while it ran"
        return [.end]
    }

    private mutating func wait(_ delay: Duration, _ reason: String, _ now: Date) -> [Action] {
        run = nil
        record.state = .restarting
        record.reason = reason
        return [.backOff(delay)]
    }

    private mutating func end(_ state: TaskState, _ reason: String, _ now: Date) -> [Action] {
        run = nil
        record.state = state
        record.reason = reason
        record.endedAt = now
        let urls = [record.spec.callbackURL ?? "", rules.noticeURL].filter { !$0.isEmpty }
        if !urls.isEmpty { record.notices = urls.map(Notice.init) }
        return [.end]
    }
}

// MARK: - After a restart of the node

extension WorkerState {
    /// Puts a task that was under way when an earlier run of the node ended on its way again, or ends it, by its policy.
    package mutating func recover(now: Date, jitter: Double) {
        switch record.state {
        case .queued, .succeeded, .failed, .cancelled, .timedOut: return
        case .preparing, .running, .stopping, .restarting, .interrupted: break
        }
        let wasStopping = record.state == .stopping && record.reason == "being cancelled"
        let lastEnded = record.attempts.last?.endedAt != nil
        if let last = record.attempts.indices.last, !lastEnded {
            record.attempts[last].endedAt = now
            record.attempts[last].reason = "the node ended while it ran"
        }
        if wasStopping {
            _ = end(.cancelled, "cancelled; the node ended meanwhile", now)
            return
        }
        let policy = record.spec.restart ?? rules.restart
        switch policy.decide(after: .interruption, restarts: record.restarts, now: now, jitter: jitter) {
        case .notCovered: _ = end(.failed, "the node ended while it ran, and its restart policy is never", now)
        case .exhausted:
            _ = end(
                .failed,
                "the node ended while it ran, and the limit of \(policy.maxRestarts) restarts in "
                    + "\(policy.windowSeconds) s is reached", now)
        case .restart:
            if !record.attempts.isEmpty { record.restarts.append(now) }
            nextMode = goesOn && !record.attempts.isEmpty ? .goOn(prompt: WorkerState.resumePrompt) : nextMode
            record.state = .interrupted
            record.reason = "the node ended while it ran; it goes on as soon as there is a slot"
        }
    }
}
