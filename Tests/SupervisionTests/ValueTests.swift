import TestSupport
import Testing

@testable import Supervision

@Suite struct TimerQueueTests {
    @Test func firesInOrderAndNeverWhatWasCancelled() {
        var queue = TimerQueue()
        var fired: [Int] = []
        let tokens = [30, 10, 20, 40].map { at in queue.add(deadline: Int64(at)) { fired.append(at) } }
        queue.cancel(tokens[2])
        #expect(queue.timeout(now: 0) == 1)
        #expect(queue.popDue(now: 9) == nil)
        while let callback = queue.popDue(now: 35) { callback() }
        #expect(fired == [10, 30] && queue.count == 1)
    }

    @Test func cancelledEntriesDoNotPileUp() {
        var queue = TimerQueue()
        for number in 0..<10_000 { queue.cancel(queue.add(deadline: Int64(number)) {}) }
        #expect(queue.count == 0 && queue.timeout(now: 0) <= 64)
    }
}

@Suite struct WorkOrderTests {
    @Test func survivesItsEncoding() throws {
        var order = WorkOrder()
        order.taskID = "t"
        order.prompt = "two\nlines, ünïcode"
        order.launches = [.init(major: 2, arguments: ["a", "", "b c"]), .init(arguments: ["d"])]
        order.environment = ["A": "b=c", "EMPTY": ""]
        order.gracePeriod = .milliseconds(1500)
        order.sandbox.isOn = true
        order.sandbox.dataFolder = "/data"
        order.sandbox.readablePaths = ["/a", "/b c"]
        order.sandbox.writablePaths = ["/w"]
        order.sandbox.bindPorts = []
        order.sandbox.connectPorts = [443, 22]
        order.sandbox.niceIncrement = 3
        #expect(WorkOrder(encoded: order.encoded()) == order)
        #expect(WorkOrder(encoded: []) == nil && WorkOrder(encoded: Array("x\0y\0".utf8)) == nil)
    }

    @Test func placesAreFilledOnceAndOnlyThose() {
        var values = AgentPreset.Values()
        values.prompt = "say {model} and {x}"
        values.model = "m"
        let preset = AgentPreset.custom(["agent", "{model}:{prompt}", "{unknown}", "{"])
        #expect(preset.filledLaunches(values)[0].arguments == ["agent", "m:say {model} and {x}", "{unknown}", "{"])
        #expect(preset.promptChannel == .argument)
        #expect(AgentPreset.custom(["a", "{prompt_file}"]).promptChannel == .file)
        #expect(AgentPreset.custom(["a"]).promptChannel == .standardInput)
    }

    @Test func aReplacedCommandKeepsTheWayOfResuming() throws {
        let claude = try #require(AgentPreset.named("claude")).replacingCommand(["/opt/claude", "-p"])
        var values = AgentPreset.Values()
        values.session = "s"
        #expect(claude.filledLaunches(values)[0].arguments == ["/opt/claude", "-p", "--resume", "s"])
        #expect(try #require(AgentPreset.named("codex")).replacingCommand(["x"]).canResume == false)
        #expect(claude.modelName("anthropic/claude-sonnet-4-6") == "claude-sonnet-4-6")
    }
}

@Suite struct WorkerReportTests {
    @Test(arguments: [
        WorkerReport.use(ResourceUse(processes: 3, memoryKB: 4, diskKB: 5)), .phase(.fetch), .note("a b"),
        .checkedOut(branch: "b", base: ""), .agentStarted(pid: 5),
        .failed(.checkout, message: "m", isTransient: true), .agentExited(.exited(3)), .agentExited(.signalled(9)),
        .work(WorkSummary(commits: 1, unpushedCommits: 2, hasUncommittedChanges: true, branch: "b")), .stopped,
    ])
    func survivesItsLine(report: WorkerReport) { #expect(WorkerReport(line: report.line) == report) }

    @Test func staysOneLineWhateverItSays() {
        #expect(WorkerReport.note("a\nb\tc").line == "note\ta b c")
        #expect(WorkerReport(line: "") == nil && WorkerReport(line: "bogus\t1") == nil)
    }
}

@Suite struct AgentEvidenceTests {
    private func evidence(_ dialect: AgentPreset.Dialect, _ lines: String...) -> AgentEvidence {
        var evidence = AgentEvidence(dialect: dialect, repo: "o/r")
        for line in lines { evidence.read(lines: Array((line + "\n").utf8)) }
        return evidence
    }

    @Test func opencode() {
        let found = evidence(
            .opencode, #"{"type":"step_start","timestamp":1,"sessionID":"ses_1","part":{"type":"step-start"}}"#,
            #"{"type":"tool_use","sessionID":"ses_1","part":{"tool":"bash","callID":"c","state":{"status":"completed","input":{"command":"git push origin HEAD"},"output":""}}}"#,
            #"{"type":"text","sessionID":"ses_1","part":{"text":"Done.\nFULL_LOOP_COMPLETE"}}"#,
            #"{"type":"step_finish","sessionID":"ses_1","part":{"reason":"stop","cost":0.5,"tokens":{"input":10,"output":2,"reasoning":0,"cache":{"read":3,"write":4}}}}"#,
            #"{"type":"step_finish","sessionID":"ses_1","part":{"cost":0.25,"tokens":{"input":1,"output":1,"reasoning":0,"cache":{"read":0,"write":0}}}}"#
        )
        #expect(found.sessionID == "ses_1" && found.sawPush && found.marker == .fullLoopComplete)
        #expect(found.usage.inputTokens == 11 && found.usage.cacheReadTokens == 3 && found.usage.costUSD == 0.75)
        let failed = evidence(
            .opencode,
            #"{"type":"error","sessionID":"s","error":{"name":"APIError","data":{"message":"Too many","statusCode":429}}}"#
        )
        #expect(failed.failure?.provider == .rateLimit)
        #expect(
            evidence(.opencode, #"{"type":"error","error":{"type":"x","message":"quota exceeded"}}"#).failure?.provider
                == .quota)
    }

    @Test func codexAndGemini() {
        let codex = evidence(
            .codex, #"{"type":"thread.started","thread_id":"t1"}"#,
            #"{"type":"item.completed","item":{"id":"i","type":"command_execution","command":"gh pr create","exit_code":0}}"#,
            #"{"type":"turn.completed","usage":{"input_tokens":5,"cached_input_tokens":2,"output_tokens":1}}"#)
        #expect(codex.sessionID == "t1" && codex.sawPullRequest && codex.usage.cacheReadTokens == 2)
        let gemini = evidence(
            .gemini, #"{"type":"init","session_id":"g1","model":"m"}"#,
            #"{"type":"message","role":"assistant","content":"TASK_COMPLETE"}"#,
            #"{"type":"result","status":"success","stats":{"input_tokens":4,"output_tokens":2}}"#)
        #expect(
            gemini.sessionID == "g1" && gemini.marker == .taskComplete && gemini.usage.outputTokens == 2
                && gemini.result == true)
    }

    @Test func whatTheAgentReadsIsNotWhatItSays() {
        let found = evidence(
            .claude,
            #"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"x","content":"TASK_COMPLETE"},{"type":"text","text":"TASK_COMPLETE"}]},"session_id":"s"}"#,
            #"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"a","input":{"command":"git push"}}]}}"#,
            #"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"a","is_error":true}]}}"#)
        #expect(found.marker == nil && !found.sawPush)
    }

    @Test func pullRequestLinksOfTheTasksRepositoryAreFound() {
        #expect(
            evidence(.plainText, "see https://github.com/o/r/pull/17.").pullRequest == "https://github.com/o/r/pull/17")
        #expect(evidence(.plainText, "see https://github.com/o/other/pull/17").pullRequest == nil)
        #expect(evidence(.plainText, "see /o/r/pull/x").pullRequest == nil)
    }

    @Test func brokenLinesAreNothing() {
        for line in [
            "{", "{}", "[]", "{\"type\":5}", String(repeating: "[", count: 100_000),
            "{\"type\":\"text\",\"part\":null}",
        ] {
            #expect(evidence(.opencode, line).marker == nil)
        }
    }
}

@Suite struct MemoryReadingTests {
    private func folder(_ files: [String: String]) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        for (path, text) in files {
            try Files.makeFolders(try #require(Files.parent(of: folder.path + "/" + path)))
            try folder.write(path, text)
        }
        return folder
    }

    private static let machine = "MemTotal: 8388608 kB\nMemFree: 1024 kB\nMemAvailable: 4194304 kB\n"

    @Test func theMachineAloneCounts() throws {
        let folder = try folder(["proc/meminfo": Self.machine, "proc/self/cgroup": "0::/\n"])
        #expect(MemoryReading.read(root: folder.path) == MemoryReading(totalMB: 8192, availableMB: 4096))
    }

    @Test func theTightestCgroupRules() throws {
        let folder = try folder([
            "proc/meminfo": Self.machine, "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": "1073741824\n", "sys/fs/cgroup/a/memory.current": "524288000\n",
            "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 104857600\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": "1\n",
        ])
        #expect(MemoryReading.read(root: folder.path) == MemoryReading(totalMB: 1024, availableMB: 624))
    }

    @Test func versionOneIsRead() throws {
        let folder = try folder([
            "proc/meminfo": Self.machine, "proc/self/cgroup": "5:memory:/docker/x\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1048576000\n",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
        ])
        #expect(MemoryReading.read(root: folder.path) == MemoryReading(totalMB: 2048, availableMB: 1048))
    }
}

@Suite struct SandboxValueTests {
    private func report(_ mode: SandboxSettings.Mode, _ version: Int, ports: [Int]? = nil) -> SandboxReport {
        var settings = SandboxSettings()
        settings.mode = mode
        settings.bindPorts = ports
        return SandboxReport(settings, landlockVersion: version, controlGroups: .inactive("not here"))
    }

    @Test func onlyAKernelThatHoldsAllFilesCanEnforce() {
        #expect(report(.enforce, 2).refusal?.contains("Landlock 2") == true)
        #expect(report(.enforce, 3).refusal == nil)
        for mode in [SandboxSettings.Mode.bestEffort, .off] { #expect(report(mode, 0).refusal == nil) }
    }

    @Test func whatIsMissingIsTold() {
        #expect(
            report(.bestEffort, 0).missing.map { $0.prefix { $0 != ":" } } == [
                "files", "truncation", "device_ioctls", "signals", "control_groups",
            ])
        #expect(report(.bestEffort, 3, ports: []).missing.contains { $0.hasPrefix("tcp_ports: needs Linux 6.7") })
        #expect(report(.bestEffort, 7).missing == ["control_groups: not here"])
        #expect(report(.off, 7).active.isEmpty && report(.off, 7).missing.count == 1)
    }

    @Test func quotasNameWhatIsTooMuch() {
        var quotas = Quotas()
        let use = ResourceUse(processes: 11, memoryKB: 30 * 1024, diskKB: 50 * 1024)
        #expect(quotas.exceeded(by: use) == nil)
        quotas.diskMB = 50
        #expect(quotas.exceeded(by: use) == nil)
        quotas.memoryMB = 29
        #expect(
            quotas.exceeded(by: use)
                == "the worker took more memory than it may: 30 MB, and sandbox.max_memory_mb is 29")
        quotas.processes = 10
        #expect(
            quotas.exceeded(by: use)
                == "the worker took more processes than it may: 11, and sandbox.max_processes is 10")
    }
}

/// FIPS 180-4's and RFC 4231's own examples.
@Suite struct SHA256Tests {
    private func hex(_ bytes: [UInt8]) -> String { bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }

    @Test func hashes() {
        #expect(hex(SHA256.hash([])) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        #expect(
            hex(SHA256.hash(Array("abc".utf8))) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
        #expect(
            hex(SHA256.hash(Array(long.utf8))) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
    }

    @Test func authenticates() {
        #expect(
            hex(SHA256.hmac(Array("what do ya want for nothing?".utf8), key: Array("Jefe".utf8)))
                == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        let message = Array("Test Using Larger Than Block-Size Key - Hash Key First".utf8)
        #expect(
            hex(SHA256.hmac(message, key: [UInt8](repeating: 0xaa, count: 131)))
                == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
    }
}

@Suite struct CapacityAdviceTests {
    @Test func itFollowsWhatTheTasksTook() {
        #expect(CapacityAdvice(peaksMB: [100, 100], totalMB: 2048, reserveMB: 0) == nil)
        let advice = CapacityAdvice(peaksMB: [100, 100, 100, 200], totalMB: 2048, reserveMB: 384)
        #expect(advice?.peakMemoryMB == 200 && advice?.maxConcurrent == 8 && advice?.tasks == 4)
        // One outlier in many doesn't count.
        let many = CapacityAdvice(peaksMB: [Int](repeating: 100, count: 50) + [5000], totalMB: 2048, reserveMB: 0)
        #expect(many?.peakMemoryMB == 100)
        #expect(CapacityAdvice(peaksMB: [5000, 5000, 5000], totalMB: 2048, reserveMB: 0)?.maxConcurrent == 1)
    }
}
