import CSystem
import Glibc
import Server
import Supervision

/// A node that runs: the supervisor, the HTTP server, and what keeps their settings up to date.
actor NodeRunner {
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    private nonisolated let loop: EventLoop
    private nonisolated let supervisor: Supervisor
    private nonisolated let log: NodeLog
    private let options: ServeOptions
    private let api: NodeAPI
    private let pulse: Pulse
    private let fleet: PulseFleet
    private let file: ConfigurationFile
    private let paths: NodePaths
    private let descriptorLimit: Int64
    private let files = BlockingLane("configuration")
    private var configuration: Configuration
    /// Why the file as it is now isn't in force.
    private var configurationFault: String?
    private let bell: Wakeup
    private var requests = Requests()

    /// What signals and the file's changes ask for, until the runner's loop comes to it.
    private struct Requests {
        var stops = 0
        var reloads = false
    }

    /// How long after a change of the file it's read: an editor may write it in several steps.
    private static let reloadDelay = Duration.milliseconds(100)

    init(
        options: ServeOptions, paths: NodePaths, file: ConfigurationFile, configuration: Configuration, loop: EventLoop,
        descriptorLimit: Int64
    ) throws(SystemError) {
        self.options = options
        self.paths = paths
        self.file = file
        self.configuration = configuration
        self.loop = loop
        self.descriptorLimit = descriptorLimit
        log = options.log
        bell = Wakeup(on: loop)
        let signals = SignalBox()
        let reaper = try Reaper(on: loop, signals: [SIGTERM, SIGINT, SIGHUP]) { signals.handler?($0) }
        let services = WorkerServices(
            loop: loop, reaper: reaper, store: TaskStore(folder: paths.tasks, on: loop), logLane: BlockingLane("logs"),
            files: BlockingLane("files"), controlGroups: ControlGroups(configuration.node.sandbox.controlGroup),
            ambient: Ambient(), executable: "/proc/self/exe")
        var environment = Environment.variables
        environment["PATH"] = environment["PATH"] ?? Files.defaultSearchPath
        supervisor = Supervisor(
            services: services, paths: paths, settings: NodeRunner.settings(configuration), environment: environment,
            noticeBody: NodeAPI.noticeBody)
        fleet = PulseFleet(
            supervisor: supervisor, hostsPath: RemoteHosts.defaultPath, files: services.files, environment: environment)
        pulse = Pulse(services: services, folder: paths.data + "/pulse", nodes: fleet, environment: environment)
        api = NodeAPI(supervisor: supervisor, pulse: pulse, settings: APISettings(), log: log)
        signals.handler = { [weak self] signal in self?.assumeIsolated { $0.received(signal) } }
    }

    /// Where the reaper leaves signals for a runner that is made after it. Used on the loop's thread alone.
    private final class SignalBox: @unchecked Sendable {
        var handler: ((Int32) -> Void)?
    }

    private func received(_ signal: Int32) {
        if signal == SIGHUP { requests.reloads = true } else { requests.stops += 1 }
        bell.signal()
    }

    // MARK: Running

    /// - Returns: the exit code.
    func run() async -> Int32 {
        let server: HTTPServer
        do throws(SystemError) {
            server = try HTTPServer(
                host: options.host, port: options.port, on: loop, handler: api, descriptorLimit: descriptorLimit)
            try await supervisor.recover()
        } catch {
            Terminal.error(NodeRunner.sentence(for: error, options))
            return 1
        }
        await publish()
        watchFile()
        await reportStart(server)
        await withDiscardingTaskGroup { group in
            group.addTask(executorPreference: loop) { await server.run() }
            group.addTask(executorPreference: loop) { [supervisor] in
                await supervisor.run()
                await self.supervisorEnded()
            }
            group.addTask(executorPreference: loop) { [pulse] in await pulse.run() }
            await serveRequests()
            await server.stop()
        }
        log.info("The node has stopped.")
        return 0
    }

    private var supervisorIsDone = false

    private func supervisorEnded() {
        supervisorIsDone = true
        bell.signal()
    }

    private func serveRequests() async {
        while !supervisorIsDone {
            if requests.reloads {
                requests.reloads = false
                await reload()
            }
            if requests.stops > 0 {
                requests.stops = 0
                log.info("The node is stopping.")
                await pulse.stop()
                await supervisor.drain()
            }
            if !requests.reloads && requests.stops == 0 && !supervisorIsDone { await bell.wait() }
        }
    }

    private func reportStart(_ server: HTTPServer) async {
        for name in NodeRunner.missingKeys(configuration) {
            log.warning("A variable that real work needs isn't set.", ["name": name])
        }
        for key in configuration.unknownKeys {
            log.warning("worker.json has a key that means nothing here.", ["key": key])
        }
        let status = await supervisor.status()
        for sentence in status.sandbox.missing { log.warning("The sandbox lacks something.", ["what": sentence]) }
        for problem in status.degraded { log.warning("The node starts degraded.", ["problem": problem]) }
        log.info(
            "The node listens.",
            [
                "url": "http://\(options.host):\(server.port)", "version": Version.current, "data": paths.data,
                "pid": String(getpid()),
            ])
    }

    private static func sentence(for error: SystemError, _ options: ServeOptions) -> String {
        switch error.errno {
        case EADDRINUSE:
            "port \(options.port) on \(options.host) is taken by another program: choose another with --port or PORT"
        case EACCES where options.port < 1024: "port \(options.port) needs the rights of root: choose one above 1023"
        case EADDRNOTAVAIL: "\(options.host) isn't an address of this machine"
        default: error.description
        }
    }

    // MARK: Configuration

    private static func settings(_ configuration: Configuration) -> NodeSettings {
        var settings = configuration.node
        let secrets = WorkerSurroundings.secretVariables.compactMap { Environment.variables[$0] }
        settings.secrets += secrets.filter { !$0.isEmpty }
        return settings
    }

    /// What real work needs and neither the node's environment nor the agent's has.
    private static func missingKeys(_ configuration: Configuration) -> [String] {
        let environment = Environment.variables.merging(configuration.node.agentEnvironment) { $1 }
        return ["GH_TOKEN", "ANTHROPIC_API_KEY"].filter { environment[$0]?.isEmpty ?? true }
    }

    private func publish() async {
        var settings = APISettings()
        settings.version = Version.current
        settings.token = configuration.authToken
        settings.trustedProxies = configuration.trustedProxies
        if Environment.isCloudron, let proxy = Environment.variables["CLOUDRON_PROXY_IP"] {
            settings.trustedProxies.append(proxy)
        }
        settings.configurationProblems = problems
        api.update(settings)
        await fleet.use(remoteHosts: configuration.pulseUsesRemoteHosts)
        await pulse.apply(pulseSettings)
    }

    private var pulseSettings: PulseSettings {
        var settings = configuration.pulse
        if settings.repositoriesPath.isEmpty { settings.repositoriesPath = paths.config + "/repos.json" }
        settings.token =
            configuration.node.agentEnvironment["GH_TOKEN"] ?? Environment.variables["GH_TOKEN"] ?? ""
        settings.version = Version.current
        return settings
    }

    private var problems: [String] {
        var problems = configuration.unknownKeys.map { "worker.json: \($0) means nothing to this version" }
        if let configurationFault { problems.insert("worker.json is not in force: \(configurationFault)", at: 0) }
        if configuration.authToken.isEmpty {
            problems.append("dispatch.auth_token is empty: every authenticated request is refused")
        }
        return problems + NodeRunner.missingKeys(configuration).map { "\($0) isn't set" }
    }

    private func watchFile() {
        let result = unsafe cs_inotify_watch_folder(paths.config)
        guard result >= 0 else {
            return log.warning("Edits of worker.json need a SIGHUP.", ["reason": SystemError.message(-result)])
        }
        let watch = WatchedFolder(descriptor: Descriptor(owning: result))
        _ = try? loop.add(result, .read) { [weak self] _ in
            watch.drain()
            self?.assumeIsolated { $0.fileMayHaveChanged() }
        }
    }

    /// Owns an inotify descriptor for as long as the loop watches it.
    private final class WatchedFolder {
        private let descriptor: Descriptor

        init(descriptor: consuming Descriptor) { self.descriptor = descriptor }

        func drain() {
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let result = unsafe buffer.withUnsafeMutableBytes { unsafe descriptor.read(into: $0) }
                guard case .bytes = result else { return }
            }
        }
    }

    private func fileMayHaveChanged() {
        _ = loop.schedule(after: NodeRunner.reloadDelay) { [weak self] in
            self?.assumeIsolated { runner in
                runner.requests.reloads = true
                runner.bell.signal()
            }
        }
    }

    private func reload() async {
        let file = file
        let result = await files.run { () -> Result<Configuration, ConfigurationError> in
            do { return .success(try file.load()) } catch let error as ConfigurationError {
                return .failure(error)
            } catch {
                return .failure(ConfigurationError(problems: ["\(error)"]))
            }
        }
        switch result {
        case .success(let new):
            configurationFault = nil
            if new != configuration {
                configuration = new
                log.info("The configuration has changed.")
                for key in new.unknownKeys {
                    log.warning("worker.json has a key that means nothing here.", ["key": key])
                }
                await supervisor.apply(NodeRunner.settings(new))
            }
        case .failure(let error):
            if configurationFault != error.description {
                log.error("worker.json is not valid; the last good one stays in force.", ["reason": error.description])
            }
            configurationFault = error.description
        }
        await publish()
    }
}
