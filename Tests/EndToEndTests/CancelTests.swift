import CSystem
import Glibc
import Supervision
import TestSupport
import Testing

/// Nothing of a task survives its cancellation, nor the server's death.
@Suite(.timeLimit(.minutes(5)))
struct CancelTests {
    /// Agents that do what makes other runners leak; each says `ready` once its processes are there.
    static let hostileAgents: [(name: String, script: String)] = [
        ("new-session", "setsid sleep 600 & setsid setsid sleep 600 & echo ready; wait; sleep 600"),
        (
            "ssh-agent",
            "if command -v ssh-agent > /dev/null; then eval $(ssh-agent) > /dev/null; fi; echo agent=$SSH_AGENT_PID; echo ready; sleep 600"
        ),
        ("ignores-term", "trap '' TERM INT HUP; (trap '' TERM; sleep 600) & echo ready; while :; do sleep 1; done"),
        (
            "keeps-forking",
            """
            cat > fork.sh <<'X'
            trap '' TERM
            setsid /bin/sh "$0" & setsid sleep 600 &
            sleep 0.02
            X
            trap '' TERM
            setsid /bin/sh fork.sh &
            echo ready
            while :; do sleep 1; done
            """
        ),
        ("stopped", "sh -c 'kill -STOP $$' & echo ready; kill -STOP $$"),
        ("double-fork", "(setsid sh -c '(sleep 600 &) ; sleep 600' &) ; echo ready; sleep 600"),
    ]

    private func node(_ script: String) throws -> TestNode {
        let node = try TestNode(
            agent: "cat > /dev/null\n" + script,
            settings: #""worker": {"cancel_grace_seconds": 1, "max_concurrent": 8}"#)
        try node.makeRepository("o/r")
        return node
    }

    @Test(arguments: hostileAgents.map(\.name))
    func nothingIsLeftAfterACancel(name: String) throws {
        let script = try #require(Self.hostileAgents.first { $0.name == name }?.script)
        let node = try node(script)
        try node.start()
        #expect(try node.dispatch(name).status == 202)
        #expect(try node.awaitLog(name, "ready"))
        let answer = try node.request("DELETE", "/workers/\(name)")
        #expect(answer.status == 200 && answer.body.contains(#""status":"cancelling""#))
        #expect([200, 404].contains(try node.request("DELETE", "/workers/\(name)").status))
        let log = try node.followToEnd(name)
        #expect(log.dropLast().last?.hasPrefix("[EXIT:143] ") == true)
        #expect(try node.state(name) == "cancelled")
        #expect(node.processes() == [])
        // ssh-agent leaves the folder, and lets nobody read where it is.
        if let agent = log.first(where: { $0.hasPrefix("agent=") })?.dropFirst(6), !agent.isEmpty {
            #expect(!Files.exists("/proc/\(agent)"))
        }
        #expect(try node.request("GET", "/status").body.contains(#""active":0"#))
    }

    @Test func nothingIsLeftAfterTheServerIsKilled() throws {
        let node = try node(
            "case $AIDEVOPS_TASK_ID in "
                + Self.hostileAgents.map { "\($0.name))\n\($0.script)\n;;" }.joined(separator: "\n") + " esac")
        try node.start()
        for agent in Self.hostileAgents { #expect(try node.dispatch(agent.name).status == 202) }
        for agent in Self.hostileAgents { #expect(try node.awaitLog(agent.name, "ready")) }
        #expect(!node.processes().isEmpty)
        node.kill()
        #expect(TestEnvironment.eventually { node.processes().isEmpty })
    }

    @Test func theOrphansOfAKilledInitAreEnded() throws {
        let node = try TestNode(
            agent: "cat > /dev/null; setsid sleep 600 & echo ready; sleep 600",
            settings: #""worker": {"restart": {"policy": "never"}}"#)
        try node.makeRepository("o/r")
        try node.start()
        let answer = try node.dispatch("victim")
        #expect(try node.awaitLog("victim", "ready"))
        let pid = answer.body[try #require(answer.body.range(of: #""pid":"#))...].prefix { $0.isNumber }
        _ = cs_kill(try #require(Int32(pid)), SIGKILL)
        _ = try node.followToEnd("victim")
        #expect(try node.worker("victim").contains("the worker's process ended unexpectedly (signal 9)"))
        #expect(TestEnvironment.eventually { node.processes().isEmpty })
    }

    @Test func aStopDuringTheCloneEndsIt() throws {
        let node = try node("echo never")
        try node.start()
        // A remote that never answers: a named pipe in the place of the repository's HEAD.
        try Files.makeFolders(node.repository("o/slow"))
        for name in ["objects", "refs"] { try Files.makeFolders(node.repository("o/slow") + "/" + name) }
        mkfifo(node.repository("o/slow") + "/HEAD", 0o600)
        #expect(try node.dispatch("slow", repo: "o/slow").status == 202)
        #expect(try node.state("slow") == "preparing")
        #expect(try node.request("DELETE", "/workers/slow").status == 200)
        _ = try node.followToEnd("slow")
        #expect(try node.state("slow") == "cancelled")
    }

    @Test func aWaitingInitIsSmall() throws {
        if TestEnvironment.variables.keys.contains(where: { $0 == "TSAN_OPTIONS" || $0 == "ASAN_OPTIONS" }) {
            return print("skipped: a sanitizer's own memory is all that would be measured")
        }
        let node = try node("echo ready; sleep 600")
        try node.start()
        let answer = try node.dispatch("small")
        #expect(try node.awaitLog("small", "ready"))
        let pid = answer.body[try #require(answer.body.range(of: #""pid":"#))...].prefix { $0.isNumber }
        guard let bytes = try? Files.read("/proc/\(pid)/smaps_rollup", limit: 65536) else {
            return print("skipped: a worker's init is closed to its own user, so only root may measure it")
        }
        let rollup = String(decoding: bytes, as: UTF8.self)
        let line = try #require(rollup.split(separator: "\n").first { $0.hasPrefix("Pss:") })
        let kilobytes = try #require(Int(line.filter(\.isNumber)))
        // A debug build links Swift's libraries dynamically; the bar of the release build is 3 MB (docs/performance.md).
        #expect(kilobytes < 16 * 1024)
    }
}
