package import FoundationEssentials
import Glibc

/// How the pulse works, as worker.json has it.
package struct PulseSettings: Sendable, Equatable {
    package var isEnabled = false
    package var interval = Duration.seconds(120)
    package var repositoriesPath = ""
    package var requiredLabel = ""
    package var apiURL = "https://api.github.com"
    package var token = ""
    package var model = ""
    package var version = ""
    /// How long a race is left open, and the pause between two launches.
    package var settleTime = ClaimProtocol.settleTime

    package init() {}
}

/// How the pulse is, for whoever asks.
package struct PulseStatus: Sendable {
    package var isEnabled = false
    package var lastRound: Date?
    package var nextRound: Date?
    package var claims: [String: String] = [:]
    package var decisions: [PulseDecision] = []
    package var problems: [String] = []
    package var budget = GitHubBudget()
    package var nodes: [PulseNode] = []
}

/// The node's own search for work: a child of the supervision tree that runs a round every interval.
///
/// It never takes the node down: what fails is told and tried again, later each time.
package actor Pulse {
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe services.loop.asUnownedSerialExecutor() }

    private nonisolated let services: WorkerServices
    private let folder: String
    private let nodes: any PulseNodes
    private let environment: [String: String]
    private let bell: Wakeup
    private let stopBell: Wakeup
    private var settings = PulseSettings()
    private var gitHub: GitHubClient?
    private var engine: PulseEngine?
    private var isStopping = false
    private var isInRound = false
    private var failures = 0
    private var status = PulseStatus()
    private var stateProblem: String?

    private static let longestPause = Duration.seconds(3600)
    private static let maxFileBytes = 8 << 20

    /// - Parameter folder: where its state is kept.
    package init(services: WorkerServices, folder: String, nodes: any PulseNodes, environment: [String: String]) {
        self.services = services
        self.folder = folder
        self.nodes = nodes
        self.environment = environment
        bell = Wakeup(on: services.loop)
        stopBell = Wakeup(on: services.loop)
    }

    package func apply(_ settings: PulseSettings) {
        let old = self.settings
        self.settings = settings
        if old.apiURL != settings.apiURL || old.token != settings.token {
            gitHub = nil
            engine = nil
        }
        bell.signal()
    }

    package func stop() {
        isStopping = true
        bell.signal()
        stopBell.signal()
    }

    package var current: PulseStatus {
        get async {
            var status = status
            status.isEnabled = settings.isEnabled
            if let gitHub { status.budget = await gitHub.budget }
            if let engine {
                status.nodes = engine.fleet
                status.claims = Dictionary(uniqueKeysWithValues: engine.state.claims.map { ($0.key, $0.claim.taskID) })
            }
            return status
        }
    }

    // MARK: Rounds

    /// Runs rounds until it's told to stop.
    package func run() async {
        var due = services.ambient.now()
        while !isStopping {
            let wait = settings.isEnabled ? Duration.seconds(due.timeIntervalSince(services.ambient.now())) : nil
            if let wait, wait <= .zero {
                _ = await round()
                due = services.ambient.now().addingTimeInterval(pause.seconds)
                status.nextRound = due
            } else {
                if !settings.isEnabled { status.nextRound = nil }
                await bell.wait(timeout: wait)
            }
        }
    }

    private var pause: Duration {
        failures == 0
            ? settings.interval
            : min(Pulse.longestPause, max(settings.interval, .seconds(30)) * (1 << min(10, failures)))
    }

    /// - Returns: what was decided; nil when a round is under way already.
    package func round(isDry: Bool = false) async -> [PulseDecision]? {
        guard !isInRound, !isStopping else { return nil }
        isInRound = true
        defer { isInRound = false }
        let (repositories, fileProblems) = await readRepositories()
        guard let engine = await prepareEngine() else {
            failures += 1
            return []
        }
        var options = PulseEngine.Options()
        options.requiredLabel = settings.requiredLabel
        options.agentModel = settings.model
        options.version = settings.version
        options.settleTime = settings.settleTime
        options.launchPause = settings.settleTime
        engine.options = options
        let decisions = await engine.round(repositories, isDry: isDry)
        status.decisions = decisions
        status.problems = fileProblems + engine.problems + (stateProblem.map { [$0] } ?? [])
        if !isDry { status.lastRound = services.ambient.now() }
        failures = engine.problems.isEmpty ? 0 : failures + 1
        return decisions
    }

    private func readRepositories() async -> ([PulseRepository], [String]) {
        let path = settings.repositoriesPath
        return await services.files.run {
            guard Files.exists(path) else { return ([], ["repos.json: \(path) isn't there"]) }
            do {
                let read = try PulseRepositories(decoding: Files.read(path, limit: Pulse.maxFileBytes))
                return (read.eligible, read.problems)
            } catch {
                return ([], ["repos.json: \(path) can't be read: it must be an object with initialized_repos"])
            }
        }
    }

    // MARK: The engine and its state

    private var statePath: String { folder + "/state.json" }

    private func prepareEngine() async -> PulseEngine? {
        guard !settings.token.isEmpty else {
            status.problems = ["GH_TOKEN isn't set: the pulse can't ask GitHub anything"]
            return nil
        }
        let gitHub =
            self.gitHub
            ?? GitHubClient(
                base: settings.apiURL, token: settings.token, environment: environment, reaper: services.reaper,
                now: services.ambient.now)
        self.gitHub = gitHub
        if let engine { return engine }
        guard let state = await loadState() else { return nil }
        let engine = PulseEngine(
            gitHub: gitHub, nodes: nodes, clock: LoopClock(pulse: self, ambient: services.ambient), state: state,
            options: PulseEngine.Options(), save: { [self] in await saveState($0) })
        self.engine = engine
        return engine
    }

    /// A state that can't be read is set aside: its claims run out by themselves.
    private func loadState() async -> PulseState? {
        let (path, folder) = (statePath, folder)
        let device = "node-" + Names.randomHex(digits: 12)
        let (state, problem) = await services.files.run { () -> (PulseState?, String?) in
            do throws(SystemError) { try Files.makeFolders(folder) } catch { return (nil, error.description) }
            guard Files.exists(path) else { return (PulseState(device: device), nil) }
            do {
                let decoder = JSONDecoder()
                decoder.dateDecodingStrategy = .iso8601
                return (
                    try decoder.decode(PulseState.self, from: Data(Files.read(path, limit: Pulse.maxFileBytes))), nil
                )
            } catch {
                unsafe rename(path, path + ".corrupt")
                return (PulseState(device: device), "pulse/state.json could not be read, and was set aside")
            }
        }
        stateProblem = problem
        if state == nil { status.problems = [problem ?? ""] }
        // A device has its name from the first round on.
        if let state, !(await saveState(state)) { return nil }
        return state
    }

    private func saveState(_ state: PulseState) async -> Bool {
        let (path, folder) = (statePath, folder)
        let encoder = JSONEncoder()
        encoder.dateEncodingStrategy = .iso8601
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let bytes = (try? encoder.encode(state)).map(Array.init) else { return false }
        return await services.files.run {
            do throws(SystemError) {
                try Files.replace(path, with: bytes)
                try Files.syncFolder(folder)
                return true
            } catch { return false }
        }
    }

    /// - Returns: false when it was told to stop.
    fileprivate func sleep(_ duration: Duration) async -> Bool {
        let end = services.ambient.now().addingTimeInterval(duration.seconds)
        while !isStopping {
            let left = end.timeIntervalSince(services.ambient.now())
            if left <= 0 { return true }
            await stopBell.wait(timeout: .seconds(left))
        }
        return false
    }
}

/// The engine's time, on the event loop.
private struct LoopClock: PulseClock {
    let pulse: Pulse
    let ambient: Ambient

    var now: Date { ambient.now() }
    func sleep(_ duration: Duration) async -> Bool { await pulse.sleep(duration) }
    func nonce() -> String { Names.randomHex(digits: 32) }
}
