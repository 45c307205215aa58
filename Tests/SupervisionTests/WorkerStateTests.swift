import FoundationEssentials
import TestSupport
import Testing

@testable import Supervision

/// The life of a task, event by event, without a process or a clock.
@Suite struct WorkerStateTests {
    private static let start = Date(timeIntervalSince1970: 1_000_000)

    private func machine(
        _ policy: RestartPolicy.Policy = .onInterrupt, canResume: Bool = false, maxRestarts: Int = 3
    ) -> WorkerState {
        let spec = TaskSpec(id: "t", repo: "o/r", prompt: "p", model: "m", branch: nil)
        var rules = WorkerState.Rules()
        rules.restart.policy = policy
        rules.restart.maxRestarts = maxRestarts
        rules.canResume = canResume
        return WorkerState(
            record: TaskRecord(spec: spec, state: .queued, reason: "", createdAt: Self.start), rules: rules)
    }

    private func exit(_ status: ChildExit.Status = .exited(0)) -> ChildExit {
        ChildExit(pid: 7, status: status, userTime: .seconds(1), systemTime: .zero, peakMemoryKB: 2048)
    }

    private func evidence(_ text: String = "", dialect: AgentPreset.Dialect = .plainText) -> AgentEvidence {
        var evidence = AgentEvidence(dialect: dialect, repo: "o/r")
        if !text.isEmpty { evidence.read(lines: Array((text + "\n").utf8)) }
        return evidence
    }

    @discardableResult
    private func run(_ machine: inout WorkerState, _ events: WorkerState.Event...) -> [WorkerState.Action] {
        events.flatMap { machine.handle($0, now: Self.start) }
    }

    private func started(_ machine: inout WorkerState) {
        run(
            &machine, .admitted, .launched(pid: 7, processStart: 1), .report(.checkedOut(branch: "main", base: "abc")),
            .report(.agentStarted(pid: 8)))
    }

    @Test func aTaskGoesFromTheQueueToItsEnd() {
        var machine = machine()
        #expect(run(&machine, .admitted) == [.launch(.fresh)])
        #expect(machine.record.state == .preparing)
        run(&machine, .launched(pid: 7, processStart: 1), .report(.phase(.fetch)), .report(.agentStarted(pid: 8)))
        #expect(machine.record.state == .running && machine.record.attempts[0].pid == 7)
        let end = run(
            &machine, .report(.agentExited(.exited(0))), .exited(exit(), evidence("TASK_COMPLETE"), jitter: 0))
        #expect(end == [.end])
        #expect(
            machine.record.state == .succeeded && machine.record.outcome == .complete && machine.record.exitCode == 0)
        #expect(machine.record.attempts[0].peakMemoryMB == 2)
    }

    @Test func whatTakesTooMuchIsKilledAtOnceAndNotStartedAgain() {
        var machine = machine(.onFailure)
        machine.rules.quotas.diskMB = 10
        started(&machine)
        #expect(run(&machine, .report(.use(ResourceUse(memoryKB: 9 << 10, diskKB: 10 << 10)))) == [])
        let actions = run(&machine, .report(.use(ResourceUse(diskKB: 12 << 10))))
        #expect(actions.last == .killProcess && machine.record.state == .stopping)
        #expect(run(&machine, .report(.use(ResourceUse(diskKB: 13 << 10)))) == [])
        #expect(run(&machine, .exited(exit(), evidence(), jitter: 0)) == [.end])
        #expect(machine.record.state == .failed && machine.record.outcome == .overQuota)
        #expect(machine.record.attempts[0].peakMemoryMB == 9)
    }

    @Test(arguments: [TaskState.queued, .preparing, .running, .restarting])
    func aCancelEndsATaskFromEveryState(from state: TaskState) {
        var machine = machine(.onFailure)
        if state != .queued { run(&machine, .admitted, .launched(pid: 7, processStart: 1)) }
        if state == .running { run(&machine, .report(.agentStarted(pid: 8))) }
        if state == .restarting { run(&machine, .exited(exit(.signalled(9)), evidence(), jitter: 0)) }
        #expect(machine.record.state == state)
        let actions = run(&machine, .stop(.cancelled))
        if state == .queued || state == .restarting {
            #expect(actions == [.end])
        } else {
            #expect(actions == [.endProcess] && machine.record.state == .stopping)
            #expect(run(&machine, .stop(.cancelled)) == [])
            #expect(run(&machine, .exited(exit(), evidence(), jitter: 0)) == [.end])
        }
        #expect(machine.record.state == .cancelled)
        #expect(run(&machine, .stop(.cancelled), .backoffOver, .admitted) == [])
    }

    @Test func aCancelThatComesBeforeTheProcessIsThereIsObeyedThen() {
        var machine = machine()
        run(&machine, .admitted)
        #expect(run(&machine, .stop(.cancelled)) == [])
        #expect(run(&machine, .launched(pid: 7, processStart: 1)) == [.endProcess])
    }

    @Test func aCancelRulesOverALimitAndOverTheNodesStop() {
        var machine = machine()
        started(&machine)
        run(&machine, .stop(.nodeStops), .stop(.cancelled), .exited(exit(), evidence(), jitter: 0))
        #expect(machine.record.state == .cancelled)
    }

    @Test func theNodesStopInterruptsAndALimitTimesOut() {
        var interrupted = machine()
        started(&interrupted)
        run(&interrupted, .stop(.nodeStops), .exited(exit(), evidence(), jitter: 0))
        #expect(interrupted.record.state == .interrupted)
        var limited = machine(.onFailure)
        started(&limited)
        run(&limited, .stop(.limit("too quiet")), .exited(exit(), evidence(), jitter: 0))
        #expect(limited.record.state == .timedOut && limited.record.reason == "too quiet")
        var done = machine()
        started(&done)
        run(
            &done, .report(.agentExited(.exited(0))), .stop(.nodeStops),
            .exited(exit(), evidence("TASK_COMPLETE"), jitter: 0))
        #expect(done.record.state == .succeeded)
    }

    @Test(arguments: [
        (RestartPolicy.Policy.never, false, false), (.onInterrupt, true, false), (.onFailure, true, true),
    ])
    func thePolicyDecidesWhatIsRestarted(policy: RestartPolicy.Policy, afterKill: Bool, afterFailure: Bool) {
        var killed = machine(policy)
        started(&killed)
        run(&killed, .report(.agentExited(.signalled(9))), .exited(exit(), evidence(), jitter: 0))
        #expect(killed.record.state == (afterKill ? .restarting : .failed))
        #expect(killed.record.reason.contains("memory ran out"))
        var failed = machine(policy)
        started(&failed)
        run(&failed, .report(.agentExited(.exited(3))), .exited(exit(), evidence(), jitter: 0))
        #expect(failed.record.state == (afterFailure ? .restarting : .failed))
        #expect(failed.record.exitCode == 3)
        var offline = machine(policy)
        run(&offline, .admitted, .launched(pid: 7, processStart: 1))
        run(
            &offline, .report(.failed(.fetch, message: "no network", isTransient: true)),
            .exited(exit(), evidence(), jitter: 0))
        #expect(offline.record.state == (afterKill ? .restarting : .failed))
        var missing = machine(policy)
        run(&missing, .admitted, .launched(pid: 7, processStart: 1))
        run(
            &missing, .report(.failed(.fetch, message: "no repository", isTransient: false)),
            .exited(exit(), evidence(), jitter: 0))
        #expect(missing.record.state == (afterFailure ? .restarting : .failed))
    }

    @Test func theIntensityIsALimit() {
        var machine = machine(maxRestarts: 2)
        for attempt in 1...3 {
            run(&machine, attempt == 1 ? .admitted : .backoffOver, .launched(pid: 7, processStart: 1))
            let actions = run(&machine, .exited(exit(.signalled(9)), evidence(), jitter: 0))
            if attempt < 3 { guard case .backOff = actions.first else { Issue.record("no backoff"); return } }
        }
        #expect(machine.record.state == .failed && machine.record.attempts.count == 3)
        #expect(machine.record.reason.contains("the limit of 2 restarts"))
    }

    @Test func anInterruptedSessionGoesOnWhereTheAgentCan() {
        let session = #"{"type":"system","session_id":"s1"}"#
        var able = machine(canResume: true)
        started(&able)
        run(
            &able, .report(.agentExited(.signalled(9))), .exited(exit(), evidence(session, dialect: .claude), jitter: 0)
        )
        #expect(run(&able, .backoffOver) == [.launch(.goOn(prompt: WorkerState.resumePrompt))])
        var unable = machine()
        started(&unable)
        run(
            &unable, .report(.agentExited(.signalled(9))),
            .exited(exit(), evidence(session, dialect: .claude), jitter: 0))
        #expect(run(&unable, .backoffOver) == [.launch(.fresh)])
    }

    @Test func aPrematureSessionIsContinuedSoOftenAndNoMore() {
        let session = #"{"type":"system","session_id":"s1"}"#
        var machine = machine(canResume: true)
        started(&machine)
        for round in 1...3 {
            let actions = run(
                &machine, .report(.agentExited(.exited(0))),
                .exited(exit(), evidence(session, dialect: .claude), jitter: 0))
            if round < 3 {
                #expect(actions == [.backOff(.zero)])
                run(&machine, .backoffOver, .launched(pid: 7, processStart: 1))
            }
        }
        #expect(machine.record.state == .succeeded && machine.record.outcome == .premature)
    }

    @Test(arguments: [
        (
            WorkSummary(commits: 1, unpushedCommits: 0, hasUncommittedChanges: false, branch: "b"), "",
            TaskOutcome.pushed
        ),
        (WorkSummary(commits: 1, unpushedCommits: 1, hasUncommittedChanges: false, branch: "b"), "", .unpushed),
        (WorkSummary(commits: 0, unpushedCommits: 0, hasUncommittedChanges: true, branch: "b"), "", .unpushed),
        (WorkSummary(commits: 0, unpushedCommits: 0, hasUncommittedChanges: false, branch: "b"), "", .noEffect),
        (WorkSummary(commits: 0, unpushedCommits: 0, hasUncommittedChanges: false, branch: "b"), "hm", .premature),
        (
            WorkSummary(commits: 0, unpushedCommits: 0, hasUncommittedChanges: false, branch: "b"), "BLOCKED: no key",
            .blocked
        ),
    ])
    func theOutcomeIsSeenFromOutside(work: WorkSummary, output: String, outcome: TaskOutcome) {
        var machine = machine()
        started(&machine)
        run(
            &machine, .report(.agentExited(.exited(0))), .report(.work(work)),
            .exited(exit(), evidence(output), jitter: 0))
        #expect(machine.record.outcome == outcome)
        #expect(machine.record.state == (outcome == .blocked ? .failed : .succeeded))
    }

    @Test func anErrorOfTheProviderIsTold() {
        var machine = machine()
        started(&machine)
        let line =
            #"{"type":"result","subtype":"success","is_error":true,"result":"API Error: 401 invalid x-api-key","api_error_status":401}"#
        run(&machine, .report(.agentExited(.exited(0))), .exited(exit(), evidence(line, dialect: .claude), jitter: 0))
        #expect(machine.record.state == .failed && machine.record.reason.contains("auth_error"))
    }

    @Test(arguments: TaskState.allCases)
    func everyStateRecoversAfterACrash(state: TaskState) throws {
        var record = machine().record
        record.state = state
        record.attempts = [Attempt(number: 1, startedAt: Self.start)]
        var machine = WorkerState(record: record, rules: WorkerState.Rules())
        machine.recover(now: Self.start, jitter: 0)
        switch state {
        case .queued, .succeeded, .failed, .cancelled, .timedOut: #expect(machine.record == record)
        case .preparing, .running, .stopping, .restarting, .interrupted:
            #expect(machine.record.state == .interrupted && machine.record.attempts[0].endedAt != nil)
            #expect(run(&machine, .admitted) == [.launch(.fresh)])
        }
        #expect(try TaskRecord(decoding: machine.record.encoded()) == machine.record)
    }

    @Test func aCancelThatTheCrashBrokeOffIsKept() {
        var record = machine().record
        record.attempts = [Attempt(number: 1, startedAt: Self.start)]
        record.state = .stopping
        record.reason = "being cancelled"
        var machine = WorkerState(record: record, rules: WorkerState.Rules())
        machine.recover(now: Self.start, jitter: 0)
        #expect(machine.record.state == .cancelled)
    }
}

@Suite struct RestartPolicyTests {
    @Test func theBackoffDoublesUpToItsLimitWithJitter() {
        var policy = RestartPolicy()
        policy.maxRestarts = 100
        (policy.backoffSeconds, policy.backoffMaxSeconds) = (5, 60)
        let now = Date(timeIntervalSince1970: 0)
        for (earlier, least) in [(0, 2.5), (1, 5), (2, 10), (3, 20), (4, 30), (50, 30)] {
            let restarts = [Date](repeating: now, count: earlier)
            #expect(
                policy.decide(after: .interruption, restarts: restarts, now: now, jitter: 0)
                    == .restart(after: .seconds(least)))
        }
        #expect(policy.decide(after: .interruption, restarts: [], now: now, jitter: 1) == .restart(after: .seconds(5)))
    }

    @Test func restartsOutsideTheWindowDoNotCount() {
        var policy = RestartPolicy()
        policy.maxRestarts = 1
        let now = Date(timeIntervalSince1970: 10_000)
        let old = [now.addingTimeInterval(-3601)]
        #expect(policy.decide(after: .interruption, restarts: old, now: now, jitter: 0) != .exhausted)
        #expect(policy.decide(after: .interruption, restarts: [now], now: now, jitter: 0) == .exhausted)
    }
}
