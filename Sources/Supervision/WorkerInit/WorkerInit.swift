import CSystem
import Glibc

/// The `worker-init` mode: one process per worker that prepares the workspace, starts the agent, and stays as the init
/// of everything the agent starts, until nothing of it is left.
///
/// Its descriptors: 0 the work order (read to its end, then /dev/null), 1 and 2 the server's log pipes, which the agent
/// inherits, 3 the report pipe, 4 the liveness pipe, whose end of file means that the server is gone.
package final class WorkerInit {
    package static let argument = "worker-init"
    /// The descriptors that the server passes, in order.
    package enum Channel: Int32, CaseIterable { case order = 0, output, errors, report, liveness }

    private let order: WorkOrder
    private let supervisor: InitSupervisor
    private let report: Descriptor
    private let sandbox: Sandbox
    /// The commit that the agent's work is counted from; empty when it isn't known.
    private var base = ""
    private var branch = ""

    /// Runs the mode to its end.
    /// - Returns: the exit code: 0 when the report says it all, 125 when there was no order.
    @available(*, noasync)
    package static func main() -> Int32 {
        cs_ignore_sigpipe()
        for channel in [Channel.report, .liveness] {
            guard cs_set_cloexec(channel.rawValue) >= 0 else { return refuse() }
        }
        let report = Descriptor(owning: Channel.report.rawValue)
        guard let bytes = try? Files.read("/proc/self/fd/0", limit: 4 << 20), let order = WorkOrder(encoded: bytes),
            let supervisor = try? InitSupervisor(liveness: Descriptor(owning: Channel.liveness.rawValue))
        else { return refuse() }
        let null = unsafe open("/dev/null", O_RDONLY | O_CLOEXEC)
        if null > 0 {
            dup2(null, Channel.order.rawValue)
            close(null)
        }
        WorkerInit(order: order, supervisor: supervisor, report: report).run()
        return 0
    }

    private static func refuse() -> Int32 {
        print("worker-init is started by the server, with its work order on descriptor 0")
        return 125
    }

    private init(order: WorkOrder, supervisor: InitSupervisor, report: consuming Descriptor) {
        self.order = order
        self.supervisor = supervisor
        self.report = report
        sandbox = Sandbox(order)
    }

    private func run() {
        var phase = WorkerReport.Phase.fetch
        var agent: Int32?
        do throws(InitFailure) {
            try makeFolders()
            do throws(SystemError) { try sandbox.enter() } catch { throw .step("the sandbox: \(error)") }
            supervisor.watch = ResourceWatch(folder: order.taskFolder, diskLimit: order.sandbox.maxDiskBytes) {
                [self] use in tell(.use(use))
            }
            if order.usesSSH { try SSHPreparation(order: order).run(under: supervisor) }
            let preparation = WorkspacePreparation(
                order: order, git: try findGit(),
                confinement: { [sandbox] () throws(SystemError) in try sandbox.agentConfinement() }
            ) { [self] message in
                switch message {
                case .phase(let next): phase = next
                case .checkedOut(let branch, let base):
                    self.branch = branch
                    self.base = order.base.isEmpty ? base : order.base
                default: break
                }
                tell(message)
            }
            try order.keepsWorktree ? preparation.resume(under: supervisor) : preparation.run(under: supervisor)
            phase = .agent
            tell(.phase(.agent))
            let pid = try startAgent()
            agent = pid
            tell(.agentStarted(pid: pid))
            let exit = try awaitAgent(pid)
            tell(.agentExited(exit.status))
            supervisor.endTree(grace: InitSupervisor.shortGrace)
            if let work = preparation.summary(since: base, under: supervisor) { tell(.work(work)) }
        } catch {
            switch error {
            case .stop(let reason):
                let grace =
                    switch reason {
                    case .serverGone: InitSupervisor.shortGrace
                    case .killed: Duration.zero
                    case .cancelled, .timedOut: order.gracePeriod
                    }
                supervisor.endTree(grace: grace, leader: agent, first: order.firstCancelSignal)
                tell(.stopped)
            case .step(let message, let isTransient):
                supervisor.endTree(grace: InitSupervisor.shortGrace)
                tell(.failed(phase, message: message, isTransient: isTransient))
            }
        }
        supervisor.endTree(grace: .zero)
        supervisor.watch = nil
    }

    private func tell(_ message: WorkerReport) {
        try? report.writeAll(Array((message.line + "\n").utf8))
    }
}

// MARK: - Preparing

extension WorkerInit {
    private func makeFolders() throws(InitFailure) {
        guard ProcessTree.isSupported else {
            throw .step("this kernel doesn't list child processes (CONFIG_PROC_CHILDREN): no worker could be contained")
        }
        do throws(SystemError) {
            try Files.makeFolders(order.home)
            try Files.makeFolders(order.temporaryFolder)
            try Files.makeFolders(Files.parent(of: order.cacheFolder) ?? "/")
            // Before the agent's rules are made, which are of files that are there.
            if order.promptChannel == .file { try Files.replace(order.promptFile, with: Array(order.prompt.utf8)) }
            let settings = order.home + "/.gitconfig"
            if !Files.exists(settings) { try Files.replace(settings, with: Array(order.gitConfiguration.utf8)) }
        } catch { throw .step(error.description) }
    }

    private func findGit() throws(InitFailure) -> String {
        guard let git = Files.findProgram("git", path: searchPath) else {
            throw .step("git isn't on PATH (\(searchPath)); install it, on Debian and Ubuntu with: apt install git")
        }
        return git
    }

    private var searchPath: String { order.environment["PATH"] ?? "" }
}

// MARK: - The agent

extension WorkerInit {
    private func startAgent() throws(InitFailure) -> Int32 {
        let arguments = try chooseLaunch()
        let path = try findAgent(arguments[0])
        var environment = order.environment
        environment["PWD"] = order.worktree  // some agents trust it over the working folder
        environment["WORKER_WORKTREE_BRANCH"] = branch
        do throws(SystemError) {
            let command = Command(
                path: path, arguments: arguments, environment: environment, directory: order.worktree,
                niceIncrement: order.sandbox.niceIncrement, confinement: try sandbox.agentConfinement())
            let input = try standardInput()
            return try command.spawn(
                descriptors: [input.number, Channel.output.rawValue, Channel.errors.rawValue])
        } catch { throw .step("the agent program could not be started: \(error)") }
    }

    /// A file with the prompt, so that its end comes by itself; no pipe that could stay open.
    private func standardInput() throws(SystemError) -> Descriptor {
        if order.promptChannel == .standardInput { return try .memoryFile("prompt", Array(order.prompt.utf8)) }
        return Descriptor(
            owning: try checkErrno("open /dev/null") { unsafe open("/dev/null", O_RDONLY | O_CLOEXEC) })
    }

    private func chooseLaunch() throws(InitFailure) -> [String] {
        guard order.launches.contains(where: { $0.major != nil }) else { return order.launches[0].arguments }
        let confinement: Confinement?
        do throws(SystemError) { confinement = try sandbox.agentConfinement() } catch { throw .step(error.description) }
        let probe = InitCommand(
            path: try findAgent(order.versionProbe[0]), arguments: order.versionProbe, environment: order.environment,
            directory: order.worktree, timeout: .seconds(60), confinement: confinement)
        let result: InitCommand.Result
        do throws(InitFailure) {
            result = try probe.run(under: supervisor)
        } catch .stop(.timedOut) {
            throw .step("\(order.versionProbe.joined(separator: " ")) didn't answer within \(probe.timeout)")
        } catch { throw error }
        let version = result.output.trimmed
        let digits = version.drop { !$0.isNumber }.prefix { $0.isNumber }
        guard let major = Int(digits) else {
            throw .step("\(order.versionProbe.joined(separator: " ")) told no version, but: \(version.prefix(200))")
        }
        guard let launch = order.launches.first(where: { $0.major == major || $0.major == nil }) else {
            throw .step("\(order.versionProbe[0]) \(version) isn't a version that this node can run")
        }
        tell(.note("agent: \(order.versionProbe[0]) \(version)"))
        return launch.arguments
    }

    private func findAgent(_ name: String) throws(InitFailure) -> String {
        guard let path = Files.findProgram(name, path: searchPath) else {
            throw .step("the agent program \(name) isn't on PATH (\(searchPath)). \(order.installHint)")
        }
        return path
    }

    private func awaitAgent(_ pid: Int32) throws(InitFailure) -> ChildExit {
        do throws(InitSupervisor.Stop) { return try supervisor.wait(for: pid) } catch { throw .stop(error) }
    }
}
