import Dispatch
import Glibc
import Supervision
import Synchronization
import TestSupport
import Testing

/// Three real nodes behind the dispatcher, one of which is killed under load: nothing is lost, nothing runs twice.
@Suite(.timeLimit(.minutes(5)))
struct FleetTests {
    @Test func aNodeThatDiesUnderLoadLosesAndDoublesNothing() throws {
        let home = try TemporaryFolder()
        let nodes = try (0..<3).map { _ in
            let node = try TestNode(
                agent: "cat > /dev/null; echo work; sleep 0.2; echo TASK_COMPLETE",
                settings:
                    #""worker": {"max_concurrent": 4, "ram_per_worker_mb": 1, "restart": {"backoff_seconds": 0}}"#)
            try node.makeRepository("o/r")
            try node.start()
            return node
        }
        func host(_ name: String, _ node: TestNode) -> String {
            #""\#(name)": {"address": "127.0.0.1:\#(node.port)", "transport": "http", "auth_token": "\#(node.token)"}"#
        }
        try Files.makeFolders(home.path + "/aidevops")
        try home.write(
            "aidevops/remote-hosts.json", "{\"hosts\": {\(host("second", nodes[1])), \(host("third", nodes[2]))}}")
        let environment = [
            "PATH": "/usr/bin:/bin", "HOME": home.path, "XDG_CONFIG_HOME": home.path,
            "AIDEVOPS_WORKER_URL": "http://127.0.0.1:\(nodes[0].port)", "AIDEVOPS_DATA_DIR": nodes[0].data,
        ]
        let accepted = Mutex(Set<String>())
        let done = Atomic(0)
        // Each of four dispatchers gives its tasks one by one, and again under the same id until a node has taken it.
        let queue = DispatchQueue(label: "dispatchers", attributes: .concurrent)
        for dispatcher in 0..<4 {
            queue.async {
                for number in 0..<12 {
                    let id = "task-\(dispatcher)-\(number)"
                    let command = Command(
                        path: TestEnvironment.executable,
                        arguments: ["aidevops-worker", "dispatch", "o/r", "Do it.", "--task-id", id],
                        environment: environment)
                    let isTaken = TestEnvironment.eventually { (try? command.run())?.succeeded == true }
                    if isTaken { accepted.withLock { _ = $0.insert(id) } }
                }
                done.add(1, ordering: .relaxed)
            }
        }
        #expect(TestEnvironment.eventually { accepted.withLock { $0.count >= 12 } })
        nodes[1].kill()
        // It comes back at another port, as a new machine would: with what it had accepted.
        #expect(TestEnvironment.eventually { accepted.withLock { $0.count >= 24 } })
        try nodes[1].start()
        #expect(TestEnvironment.eventually { done.load(ordering: .relaxed) == 4 })
        let ids = accepted.withLock { $0 }
        #expect(ids.count == 48)
        for id in ids.sorted() {
            let knowing = try nodes.filter { try $0.request("GET", "/workers/\(id)").status == 200 }
            #expect(knowing.count == 1, "\(id) is on \(knowing.count) nodes")
            guard let node = knowing.first else { continue }
            #expect(try TestEnvironment.eventually { try node.state(id) == "succeeded" }, "\(id)")
        }
    }
}
