import FoundationEssentials
import Supervision

/// The nodes that the pulse gives tasks to: this one first, then those of remote-hosts.json by their free slots.
actor PulseFleet: PulseNodes {
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe reaper.loop.asUnownedSerialExecutor() }

    private nonisolated let reaper: Reaper
    private let supervisor: Supervisor
    private let hostsPath: String
    private let files: BlockingLane
    private let environment: [String: String]
    private var usesRemoteHosts = false
    /// Equals are taken in turn.
    private var turn = 0

    private static let timeoutSeconds = 10
    private static let maxAnswerBytes = 1 << 20
    private static let questions = 3

    init(supervisor: Supervisor, hostsPath: String, files: BlockingLane, environment: [String: String]) {
        reaper = supervisor.services.reaper
        self.supervisor = supervisor
        self.hostsPath = hostsPath
        self.files = files
        self.environment = environment
    }

    func use(remoteHosts: Bool) { usesRemoteHosts = remoteHosts }

    // MARK: Asking

    private func hosts() async -> [RemoteHosts.Host] {
        guard usesRemoteHosts else { return [] }
        let path = hostsPath
        return await files.run { (try? RemoteHosts(path: path))?.all.filter(\.isOurs) ?? [] }
    }

    private enum Answer {
        case answered(status: Int, JSONValue)
        /// Certainly not received.
        case unreached(String)
        case lost(String)
    }

    private func ask(_ host: RemoteHosts.Host, _ method: String, _ path: String, _ body: JSONValue? = nil) async
        -> Answer
    {
        var request = CurlRequest(url: host.url + path)
        request.method = method
        request.timeoutSeconds = PulseFleet.timeoutSeconds
        request.headers = [("Authorization", "Bearer \(host.token)"), ("Content-Type", "application/json")]
        request.body = body.map { Array($0.text.utf8) }
        request.options = [CurlRequest.writesStatus]
        guard let command = Command(program: "curl", CurlRequest.arguments, environment: environment) else {
            return .unreached("curl isn't on PATH")
        }
        do throws(SystemError) {
            let result = try await reaper.run(
                command, input: request.configuration, outputLimit: PulseFleet.maxAnswerBytes,
                timeout: .seconds(PulseFleet.timeoutSeconds + 2))
            guard result.succeeded, let answer = CurlRequest.parse(result.output) else {
                return CurlRequest.reachedNobody(result.status) ? .unreached(result.errorText) : .lost(result.errorText)
            }
            guard let json = try? JSONValue(bytes: answer.body) else {
                return .lost("it answered with status \(answer.status) and no JSON")
            }
            return .answered(status: answer.status, json)
        } catch { return .unreached(error.description) }
    }

    /// The remote nodes that answer, with their slots; all are asked at once.
    private func remoteSlots() async -> [(host: RemoteHosts.Host, free: Int, all: Int)] {
        let hosts = await hosts()
        return await withTaskGroup { group in
            for host in hosts {
                group.addTask(executorPreference: reaper.loop) { [self] () -> (RemoteHosts.Host, Int, Int)? in
                    guard case .answered(200, let status) = await ask(host, "GET", "/status"),
                        status["status"]?.string != "draining"
                    else { return nil }
                    return (
                        host, status["workers"]?["available"]?.integer ?? 0, status["workers"]?["max"]?.integer ?? 0
                    )
                }
            }
            var found: [(host: RemoteHosts.Host, free: Int, all: Int)] = []
            for await answer in group { if let answer { found.append(answer) } }
            return found
        }
    }

    func nodes() async -> [PulseNode] {
        let status = await supervisor.status()
        let own = PulseNode(name: "this node", free: max(0, status.max - status.active), all: status.max)
        let remote = await remoteSlots().sorted { $0.host.name < $1.host.name }
        return [own] + remote.map { PulseNode(name: $0.host.name, free: $0.free, all: $0.all) }
    }

    // MARK: Placing

    func place(_ request: DispatchRequest) async -> PulsePlacement {
        var refusals: [String] = []
        do throws(DispatchRefusal) {
            let receipt = try await supervisor.dispatch(request)
            return .placed(host: nil, pid: receipt.pid)
        } catch {
            // What comes again with a record that is there already was taken before.
            if case .alreadyActive = error { return .placed(host: nil, pid: nil) }
            refusals.append("this node: \(error)")
        }
        let remote = await remoteSlots().filter { $0.free > 0 }.sorted {
            ($1.free, $0.host.name) < ($0.free, $1.host.name)
        }
        turn += 1
        for (host, _, _) in PulseFleet.rotated(remote, by: turn) {
            switch await offer(request, to: host) {
            case .refused(let reason): refusals.append("\(host.name): \(reason)")
            case let placement: return placement
            }
        }
        return .refused(refusals.joined(separator: "; "))
    }

    /// Those with as many free slots as the first, in turn; then the rest.
    private static func rotated(_ nodes: [(host: RemoteHosts.Host, free: Int, all: Int)], by turn: Int)
        -> [(host: RemoteHosts.Host, free: Int, all: Int)]
    {
        let equals = nodes.prefix { $0.free == nodes[0].free }
        guard equals.count > 1 else { return nodes }
        let start = turn % equals.count
        return Array(equals[start...] + equals[..<start] + nodes[equals.count...])
    }

    private func offer(_ request: DispatchRequest, to host: RemoteHosts.Host) async -> PulsePlacement {
        switch await ask(host, "POST", "/dispatch", PulseFleet.body(request)) {
        case .answered(202, let answer):
            return .placed(host: host.name, pid: answer["pid"]?.integer.map { Int32(truncatingIfNeeded: $0) })
        case .answered(409, _): return await resolve(request, at: host, "it has the task")
        case .answered(let status, let answer):
            let sentence = answer["error"]?.string
            // A proxy's answer isn't the node's.
            if status >= 500, sentence == nil {
                return await resolve(request, at: host, "it answered with status \(status)")
            }
            return .refused(sentence ?? "it answered with status \(status)")
        case .unreached(let reason): return .refused(reason)
        case .lost(let reason): return await resolve(request, at: host, reason)
        }
    }

    /// Asks a node that may have the task whether it has.
    private func resolve(_ request: DispatchRequest, at host: RemoteHosts.Host, _ reason: String) async
        -> PulsePlacement
    {
        for _ in 0..<PulseFleet.questions {
            switch await ask(host, "GET", "/workers/\(request.id ?? "")") {
            case .answered(200, let answer):
                return .placed(host: host.name, pid: answer["pid"]?.integer.map { Int32(truncatingIfNeeded: $0) })
            case .answered(404, _): return .refused(reason)
            case .answered, .unreached, .lost: continue
            }
        }
        return .uncertain(host: host.name, reason)
    }

    private static func body(_ request: DispatchRequest) -> JSONValue {
        var body: JSONValue = .object(["repo": .string(request.repo), "prompt": .string(request.prompt)])
        body["task_id"] = request.id.map { .string($0) }
        body["branch"] = request.branch.map { .string($0) }
        body["base_branch"] = request.baseBranch.map { .string($0) }
        if let issue = request.issue, let bytes = try? JSONEncoder().encode(issue) {
            body["issue"] = try? JSONValue(bytes: Array(bytes))
        }
        return body
    }

    // MARK: Ends

    func fate(of taskID: String, on host: String?) async -> PulseFate {
        guard let host else {
            guard let record = await supervisor.record(of: taskID) else { return .unknown }
            return record.state.isEnded ? .ended(PulseFleet.end(of: record)) : .active
        }
        let path = hostsPath
        let found = await files.run { (try? RemoteHosts(path: path))?.all.first { $0.name == host } }
        guard let found else { return .unreachable }
        switch await ask(found, "GET", "/workers/\(taskID)") {
        case .answered(200, let answer): return PulseFleet.fate(answer)
        case .answered(404, _): return .unknown
        case .answered, .unreached, .lost: return .unreachable
        }
    }

    private static func end(of record: TaskRecord) -> PulseEnd {
        PulseEnd(
            state: record.state, outcome: record.outcome, reason: record.reason, exitCode: record.exitCode,
            pullRequest: record.pullRequest,
            tokens: (record.usage?.inputTokens ?? 0) + (record.usage?.outputTokens ?? 0),
            attempts: record.attempts.count)
    }

    private static func fate(_ answer: JSONValue) -> PulseFate {
        guard let state = answer["state"]?.string.flatMap(TaskState.init) else { return .unreachable }
        guard state.isEnded else { return .active }
        let usage = answer["usage"]
        return .ended(
            PulseEnd(
                state: state, outcome: answer["outcome"]?.string.flatMap(TaskOutcome.init),
                reason: answer["reason"]?.string ?? "",
                exitCode: answer["exit_code"]?.integer.map { Int32(truncatingIfNeeded: $0) },
                pullRequest: answer["pull_request"]?.string,
                tokens: (usage?["input_tokens"]?.integer ?? 0) + (usage?["output_tokens"]?.integer ?? 0),
                attempts: answer["attempt"]?.integer ?? 1))
    }
}
