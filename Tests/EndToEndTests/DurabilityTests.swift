import CSystem
import Glibc
import Supervision
import TestSupport
import Testing

/// Nothing that was accepted is lost: crashes, stops, restarts, full disks.
@Suite(.timeLimit(.minutes(10)))
struct DurabilityTests {
    @Test func killedAtRandomMomentsTheNodeLosesNothing() throws {
        var chaos = try ChaosRun()
        let report = try chaos.run(cycles: 6)
        #expect(report.isClean && report.cycles == 6, "\(report)")
        #expect(report.accepted > 0)
    }

    @Test func whatAKilledGitLeftInTheCacheStopsNobody() throws {
        let node = try TestNode(agent: "cat > /dev/null; echo TASK_COMPLETE")
        try node.makeRepository("o/r")
        try node.start()
        _ = try node.dispatch("one")
        _ = try node.followToEnd("one")
        let caches = node.data + "/workspace/cache"
        let cache = try #require(Files.names(in: caches).first { !$0.hasSuffix(".lock") })
        for name in ["config.lock", "HEAD.lock", "packed-refs.lock", "refs/heads/main.lock", "shallow.lock"] {
            try node.folder.write("data/workspace/cache/\(cache)/\(name)", "")
        }
        _ = try node.dispatch("two")
        _ = try node.followToEnd("two")
        let view = try node.worker("two")
        #expect(view.contains(#""state":"succeeded""#), "\(view)")
    }

    @Test func fewDescriptorsAreEnough() throws {
        var chaos = try ChaosRun(descriptorLimit: 64)
        let report = try chaos.run(cycles: 3)
        #expect(report.isClean, "\(report)")
    }

    @Test func aStopInterruptsAndTheNextStartGoesOn() throws {
        let node = try TestNode(
            agent: """
                cat > /dev/null
                trap '' TERM
                if [ -e "$HOME/../../../../../../second" ]; then echo second; echo TASK_COMPLETE; exit; fi
                echo ready
                while :; do sleep 1; done
                """, settings: #""worker": {"cancel_grace_seconds": 100, "restart": {"backoff_seconds": 0}}"#)
        try node.makeRepository("o/r")
        try node.start()
        _ = try node.dispatch("job")
        #expect(try node.awaitLog("job", "ready"))
        // A second signal hurries; one alone takes the drain's own grace period.
        node.signal(SIGTERM)
        #expect(node.awaitLine("The node is stopping.") != nil)
        node.signal(SIGINT)
        #expect(node.awaitExit() == 0)
        #expect(node.processes() == [])
        #expect(try node.folder.read("data/tasks/job.json").contains(#""state" : "interrupted""#))
        try node.writeConfiguration(agent: "cat > /dev/null; echo second; echo TASK_COMPLETE")
        try node.start()
        #expect(try node.followToEnd("job").contains("second"))
        let view = try node.worker("job")
        #expect(
            view.contains(#""state":"succeeded""#) && view.contains(#""number":2"#) && view.contains("the node stopped")
        )
    }

    @Test func whileItStopsTheNodeTakesNothing() throws {
        let node = try TestNode(agent: "cat > /dev/null; trap '' TERM; echo ready; while :; do sleep 1; done")
        try node.makeRepository("o/r")
        try node.start()
        _ = try node.dispatch("job")
        #expect(try node.awaitLog("job", "ready"))
        node.signal(SIGTERM)
        #expect(node.awaitLine("The node is stopping.") != nil)
        let answer = try node.dispatch("late")
        #expect(answer.status == 503 && answer.headers["retry-after"] != nil)
        #expect(try node.request("GET", "/status").body.contains(#""status":"draining""#))
        node.signal(SIGTERM)
        #expect(node.awaitExit() == 0)
    }

    @Test func anAgentThatCanGoOnGetsItsSessionBack() throws {
        // Speaks as claude does; its arguments tell whether it was resumed.
        let agent = """
            echo "{\\"type\\":\\"system\\",\\"subtype\\":\\"init\\",\\"session_id\\":\\"sess-1\\"}"
            if [ "$1" = "--resume" ]; then
              echo "resumed $2 with: $(cat)"; ls
              git add . && git commit -qm done && git push -q origin HEAD
              echo '{"type":"result","subtype":"success","is_error":false,"result":"ok","total_cost_usd":0.5,"usage":{"input_tokens":3,"output_tokens":4}}'
              exit
            fi
            cat > /dev/null; echo half > half-done.txt; echo '{"type":"ready"}'; sleep 600
            """
        let node = try TestNode(agent: agent)
        try node.writeConfiguration(
            """
            {"dispatch": {"auth_token": "\(node.token)"}, "git": {"base_url": "file://\(node.folder.path)/remote"},
             "worker": {"restart": {"backoff_seconds": 0}},
             "agent": {"preset": "claude", "command": ["/bin/sh", "\(node.folder.path)/agent.sh"]}}
            """)
        try node.makeRepository("o/r")
        try node.start()
        _ = try node.dispatch("job")
        #expect(try node.awaitLog("job", "ready"))
        // Graceful, so that the session's id is in the record.
        node.signal(SIGTERM)
        #expect(node.awaitExit() == 0)
        try node.start()
        let log = try node.followToEnd("job")
        #expect(log.contains { $0.hasPrefix("resumed sess-1 with: You were interrupted.") })
        #expect(log.contains("half-done.txt"))
        let view = try node.worker("job")
        #expect(view.contains(#""outcome":"pushed""#) && view.contains(#""cost_usd":0.5"#))
        // And a later task goes on in the same worktree and session.
        let more = try node.dispatch("review", more: #""continue_task": "job""#)
        #expect(more.status == 202, "\(more.body)")
        let second = try node.followToEnd("review")
        #expect(second.contains { $0.hasPrefix("resumed sess-1 with: Do it.") } && second.contains("half-done.txt"))
        #expect(try node.dispatch("x", more: #""continue_task": "nothing""#).body.contains("there is no task nothing"))
        #expect(
            try node.dispatch("y", repo: "o/other", more: #""continue_task": "job""#).body.contains("worked on o/r"))
    }

    @Test func theQueueIsDurableOrderedBoundedAndCancellable() throws {
        let node = try TestNode(agent: "cat > /dev/null; echo ready; sleep 600")
        func configure(_ agent: String) throws {
            try node.folder.write("agent.sh", agent)
            try node.writeConfiguration(
                """
                {"dispatch": {"auth_token": "\(node.token)", "auto_accept": true, "queue_limit": 3},
                 "git": {"base_url": "file://\(node.folder.path)/remote"},
                 "worker": {"max_concurrent": 1, "restart": {"backoff_seconds": 0}},
                 "sandbox": {"write_paths": ["\(node.folder.path)/shared"]},
                 "agent": {"preset": "custom", "command": ["/bin/sh", "\(node.folder.path)/agent.sh"]}}
                """)
        }
        try configure("cat > /dev/null; echo ready; sleep 600")
        try Files.makeFolders(node.folder.path + "/shared")
        try node.makeRepository("o/r")
        try node.start()
        #expect(try node.dispatch("first").body.contains("dispatched"))
        for (place, id) in ["second", "third", "fourth"].enumerated() {
            let answer = try node.dispatch(id)
            #expect(
                answer.status == 202 && answer.body.contains(#""status":"queued""#)
                    && answer.body.contains(#""pid":null"#))
            #expect(answer.body.contains(#""position":\#(place + 1)"#))
        }
        #expect(try node.dispatch("fifth").status == 429)
        #expect(try node.request("GET", "/status").body.contains(#""queue":{"length":3}"#))
        #expect(try node.request("DELETE", "/workers/third").status == 200)
        #expect(try TestEnvironment.eventually { try node.state("third") == "cancelled" })
        #expect(try node.request("GET", "/workers").body.contains(#""position":2"#))
        node.kill()
        try configure(
            #"cat > /dev/null; echo "$AIDEVOPS_TASK_ID" >> \#(node.folder.path)/shared/order; echo TASK_COMPLETE"#)
        try node.start()
        #expect(try TestEnvironment.eventually { try node.request("GET", "/workers").body == #"{"workers":[]}"# })
        let order = try node.folder.read("shared/order")
        #expect(order == "first\nsecond\nfourth\n", "\(order)")
    }

    @Test func silenceAndLengthAreLimited() throws {
        let node = try TestNode(agent: "", settings: "")
        func configure(_ limit: String) throws {
            try node.writeConfiguration(
                agent:
                    "cat > /dev/null; echo ready; while :; do sleep 0.1; [ $AIDEVOPS_TASK_ID = chatty ] && echo still here; done; sleep 600",
                settings: #""worker": {\#(limit), "cancel_grace_seconds": 1}"#)
        }
        try configure(#""idle_timeout_minutes": 0.01"#)
        try node.makeRepository("o/r")
        try node.start()
        _ = try node.dispatch("silent")
        let log = try node.followToEnd("silent")
        #expect(log.contains { $0.contains("the worker printed nothing for 1 seconds") })
        #expect(log.dropLast().last?.hasPrefix("[EXIT:124]") == true)
        #expect(try node.state("silent") == "timed_out")
        node.stop()
        try configure(#""max_runtime_minutes": 0.03"#)
        try node.start()
        _ = try node.dispatch("chatty")
        _ = try node.followToEnd("chatty")
        #expect(try node.worker("chatty").contains("the most that it may"))
    }

    @Test func aRecordThatCannotBeReadIsSetAside() throws {
        let node = try TestNode(agent: "true")
        try Files.makeFolders(node.data + "/tasks")
        for (name, text) in [("broken", "{"), ("empty", ""), ("newer", #"{"version": 99}"#)] {
            try node.folder.write("data/tasks/\(name).json", text)
        }
        try node.folder.write("data/tasks/half.json.tmp", "{\"ver")
        try node.start()
        let status = try node.request("GET", "/status").body
        #expect(status.contains(#""status":"degraded""#) && status.contains("tasks/broken.json.corrupt"))
        #expect(
            Set(try Files.names(in: node.data + "/tasks")) == [
                "broken.json.corrupt", "empty.json.corrupt", "newer.json.corrupt",
            ])
        #expect(try node.request("GET", "/workers/broken").status == 404)
    }

    @Test func theHistoryIsFilteredAndPaged() throws {
        let node = try TestNode(
            agent: "cat > /dev/null; case $AIDEVOPS_TASK_ID in bad*) exit 3;; esac; echo TASK_COMPLETE")
        try node.makeRepository("o/r")
        try node.makeRepository("o/s")
        try node.start()
        for (id, repo) in [("good-1", "o/r"), ("bad-1", "o/r"), ("good-2", "o/s")] {
            _ = try node.dispatch(id, repo: repo)
            _ = try node.followToEnd(id)
        }
        func ids(_ query: String) throws -> [String] {
            let body = try node.request("GET", "/tasks\(query)").body
            return ["good-1", "bad-1", "good-2"].filter { body.contains(#""task_id":"\#($0)""#) }
        }
        #expect(try ids("") == ["good-1", "bad-1", "good-2"])
        #expect(try ids("?state=failed") == ["bad-1"])
        #expect(try ids("?repo=O/S") == ["good-2"])
        let page = try node.request("GET", "/tasks?limit=2").body
        let next = page[try #require(page.range(of: #""next":""#))...].prefix { $0 != "\"" }
        #expect(try ids("?limit=2").count == 2)
        #expect(try ids("?limit=2&before=\(next)").count == 1)
        for query in ["?state=bogus", "?limit=0", "?limit=x", "?before=x"] {
            #expect(try node.request("GET", "/tasks\(query)").status == 400)
        }
        node.stop()
        try node.start()
        #expect(try ids("").count == 3)
        #expect(try node.worker("bad-1").contains(#""exit_code":3"#))
        #expect(try node.request("GET", "/workers/bad-1/logs").body.contains("[EXIT:3]"))
    }

    @Test func worktreesGoAndUnpushedWorkStays() throws {
        let node = try TestNode(
            agent:
                "cat > /dev/null; if [ $AIDEVOPS_TASK_ID = dirty ]; then echo x > new.txt; fi; mkdir -p $(printf 'd/%.0s' $(seq 300)); echo TASK_COMPLETE",
            settings: #""retention": {"worktree_hours": 0}"#)
        try node.makeRepository("o/r")
        try node.start()
        for id in ["clean", "dirty"] {
            _ = try node.dispatch(id)
            _ = try node.followToEnd(id)
        }
        node.stop()
        try node.start()
        #expect(TestEnvironment.eventually { (try? Files.names(in: node.data + "/workspace/tasks")) == ["dirty"] })
        #expect(
            try TestEnvironment.eventually {
                try node.request("GET", "/status").body.contains(#""kept_worktrees":["dirty"]"#)
            })
        #expect(
            try node.dispatch("more", more: #""continue_task": "clean""#).body.contains(
                "the worktree of task clean is gone"))
    }

    @Test func aFullDiskRefusesLosesNothingAndIsRecoveredFrom() throws {
        let node = try TestNode(
            agent:
                "cat > /dev/null; echo ready; while [ ! -e \"$HOME/../go\" ]; do sleep 0.05; done; echo TASK_COMPLETE")
        try node.makeRepository("o/r")
        guard (try? TestEnvironment.run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", node.data])) != nil else {
            print("skipped: mounting a small tmpfs needs root and CAP_SYS_ADMIN")
            return
        }
        defer {
            node.kill()
            _ = try? TestEnvironment.run("umount", ["-l", node.data])
        }
        try Files.makeFolders(node.data + "/config")
        try node.writeConfiguration(agent: try node.folder.read("agent.sh"))
        try node.start()
        #expect(try node.dispatch("before").status == 202)
        #expect(try node.awaitLog("before", "ready"))
        _ = try? TestEnvironment.run("dd", ["if=/dev/zero", "of=\(node.data)/filler", "bs=4096"])
        let refused = try node.dispatch("during")
        #expect(refused.status == 503 && refused.body.contains("No space left on device"), "\(refused.body)")
        #expect(try node.request("GET", "/status").body.contains(#""status":"degraded""#))
        #expect(try node.request("GET", "/health").status == 200)
        #expect(try node.state("before") == "running")
        try Files.remove(node.data + "/filler")
        #expect(try TestEnvironment.eventually { try node.request("GET", "/status").body.contains(#""status":"ok""#) })
        try node.folder.write("data/workspace/tasks/before/go", "")
        _ = try node.followToEnd("before")
        #expect(try node.state("before") == "succeeded")
        #expect(try node.request("GET", "/workers/during").status == 404)
    }
}
