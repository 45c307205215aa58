import CSystem
import Glibc
import Supervision

/// Kills a node at random moments under dispatch load, again and again, and then counts: every task that was accepted must have
/// been worked on to its end, none twice at once, and nothing may be left over.
package struct ChaosRun {
    /// What was found; all but the first three must be zero.
    package struct Report: Sendable, Equatable {
        package var cycles = 0
        package var accepted = 0
        package var refused = 0
        package var lost = 0
        package var notSucceeded = 0
        package var startedTwiceAtOnce = 0
        package var leftProcesses = 0
        package var leftWorktrees = 0
        /// The first of the tasks that did not succeed, as the API shows it.
        package var example = ""

        package var isClean: Bool { lost + notSucceeded + startedTwiceAtOnce + leftProcesses + leftWorktrees == 0 }
    }

    private let node: TestNode
    private var accepted: Set<String> = []
    private var report = Report()
    private var generator: any RandomNumberGenerator
    /// No more are dispatched: the records and logs of ended tasks must not fill a small disk by themselves.
    private let maxTasks: Int

    /// Holds a lock for as long as it runs; who finds it taken runs beside another.
    private static func agent(in folder: String) -> String {
        """
        cat > /dev/null
        exec 9> "\(folder)/locks/$AIDEVOPS_TASK_ID"
        flock -n 9 || echo "$AIDEVOPS_TASK_ID" >> "\(folder)/locks/doubles"
        for step in 1 2 3 4 5; do echo "step $step"; sleep 0.02; done
        (setsid sleep 60 9>&- &)
        echo TASK_COMPLETE
        """
    }

    package init(
        descriptorLimit: Int? = nil, folder: TemporaryFolder? = nil, maxTasks: Int = .max,
        generator: any RandomNumberGenerator = SystemRandomNumberGenerator()
    )
        throws
    {
        let settings = """
            "worker": {"max_concurrent": 6, "ram_per_worker_mb": 1, "cancel_grace_seconds": 1,
              "restart": {"max_restarts": 1000, "backoff_seconds": 0}},
            "dispatch": {"auth_token": "0123456789abcdef0123456789abcdef", "auto_accept": true, "queue_limit": 100000},
            "retention": {"worktree_hours": 0}
            """
        node = try TestNode(agent: "", folder: folder)
        try Files.makeFolders(node.folder.path + "/locks")
        try node.folder.write("agent.sh", ChaosRun.agent(in: node.folder.path))
        try node.writeConfiguration(
            """
            {"git": {"base_url": "file://\(node.folder.path)/remote"},
             "agent": {"preset": "custom", "command": ["/bin/sh", "\(node.folder.path)/agent.sh"]},
             "sandbox": {"write_paths": ["\(node.folder.path)/locks"]}, \(settings)}
            """)
        try node.makeRepository("o/r")
        node.descriptorLimit = descriptorLimit
        self.generator = generator
        self.maxTasks = maxTasks
    }

    /// Kills the node `cycles` times, or until the deadline.
    package mutating func run(cycles: Int, until deadline: ContinuousClock.Instant? = nil) throws -> Report {
        while report.cycles < cycles, deadline.map({ ContinuousClock.now < $0 }) ?? true {
            try node.start()
            let end = cs_monotonic_ns() + Int64.random(in: 5_000_000...400_000_000, using: &generator)
            var number = 0
            while cs_monotonic_ns() < end, number < 8, accepted.count < maxTasks {
                number += 1
                dispatch("c\(report.cycles)-\(number)")
            }
            while cs_monotonic_ns() < end { poll(nil, 0, 1) }
            node.kill()
            report.cycles += 1
        }
        return try settle()
    }

    private mutating func dispatch(_ id: String) {
        // An answer that never came may or may not be a task; only a 202 is a promise.
        guard let status = try? node.dispatch(id).status else { return }
        if status == 202 { accepted.insert(id) } else { report.refused += 1 }
    }

    /// Lets everything come to its end, and counts.
    private mutating func settle() throws -> Report {
        try node.start()
        let isDone = try TestEnvironment.eventually(within: .seconds(300)) {
            try node.request("GET", "/workers").body == #"{"workers":[]}"#
        }
        guard isDone else {
            throw TestConnection.Failure(
                description: "tasks don't end: \(try node.request("GET", "/workers").body.prefix(2000))")
        }
        report.accepted = accepted.count
        for id in accepted {
            let answer = try node.request("GET", "/workers/\(id)")
            if answer.status != 200 {
                report.lost += 1
            } else if !answer.body.contains(#""state":"succeeded""#) {
                report.notSucceeded += 1
                report.example = answer.body
            }
        }
        node.stop()
        let doubles = (try? node.folder.read("locks/doubles")) ?? ""
        report.startedTwiceAtOnce = doubles.split(separator: "\n").count
        report.leftProcesses = TestEnvironment.eventually { node.processes().isEmpty } ? 0 : node.processes().count
        // Housekeeping runs at the start, and with no retention takes every ended task's folder.
        try node.start()
        let workspace = node.data + "/workspace/tasks"
        _ = TestEnvironment.eventually(within: .seconds(30)) { (try? Files.names(in: workspace))?.isEmpty ?? true }
        report.leftWorktrees = ((try? Files.names(in: workspace)) ?? []).count
        node.stop()
        return report
    }
}
