package import FoundationEssentials

/// A word about a task's end that somebody is owed; it's kept in the task's record until it was taken or given up.
package struct Notice: Sendable, Equatable, Codable {
    package var url: String
    package var attempts = 0
    package var deliveredAt: Date?
    /// Why the last attempt failed.
    package var problem: String?
    package var isGivenUp = false

    init(url: String) { self.url = url }

    package var isOwed: Bool { deliveredAt == nil && !isGivenUp }

    enum CodingKeys: String, CodingKey {
        case url, attempts, problem
        case deliveredAt = "delivered_at"
        case isGivenUp = "given_up"
    }

    static let maxAttempts = 20
    private static let firstPause = Duration.seconds(5)
    private static let longestPause = Duration.seconds(3600)

    /// How long after a failed attempt the next one is made: twice as long each time, so that all take about half a day.
    var pause: Duration { min(Notice.longestPause, Notice.firstPause * (1 << min(20, max(0, attempts - 1)))) }
}

extension Supervisor {
    private static let maxDeliveries = 4
    /// Below what a node that stops has left.
    private static let deliverySeconds = 5
    private static let maxAnswerBytes = 64 << 10

    /// Posts what is owed, until the node stops; what is left then is posted after the next start.
    func deliverNotices() async {
        while !isDraining {
            let now = services.ambient.now()
            let due = owedNotices.filter { $0.value <= now }.keys.sorted().prefix(Supervisor.maxDeliveries)
            await withDiscardingTaskGroup { group in
                for id in due {
                    group.addTask(executorPreference: services.loop) { [self] in await deliver(id) }
                }
            }
            if isDraining { return }
            let next = owedNotices.values.min().map { Duration.seconds($0.timeIntervalSince(services.ambient.now())) }
            if next ?? .seconds(1) > .zero { await noticeBell.wait(timeout: next) }
        }
    }

    /// Puts an ended task on the list, if somebody is owed a word about it.
    func owe(_ record: TaskRecord) {
        guard record.state.isEnded, record.notices?.contains(where: \.isOwed) == true else { return }
        owedNotices[record.id] = services.ambient.now()
        noticeBell.signal()
    }

    private func deliver(_ id: String) async {
        owedNotices[id] = .distantFuture
        // A task of the same name may have taken its place.
        guard workers[id] == nil, var record = await services.store.load(id), record.state.isEnded,
            let index = record.notices?.firstIndex(where: \.isOwed), var notice = record.notices?[index]
        else { return owedNotices[id] = nil }
        let problem = await post(record, to: notice.url)
        notice.attempts += 1
        notice.problem = problem
        if problem == nil { notice.deliveredAt = services.ambient.now() }
        notice.isGivenUp = problem != nil && notice.attempts >= Notice.maxAttempts
        record.notices?[index] = notice
        guard workers[id] == nil else { return owedNotices[id] = nil }
        try? await services.store.save(record)
        let isOwed = record.notices?.contains(where: \.isOwed) == true
        let pause = problem == nil || notice.isGivenUp ? Duration.zero : notice.pause
        owedNotices[id] = isOwed ? services.ambient.now().addingTimeInterval(pause.seconds) : nil
    }

    /// - Returns: what went wrong; nil when it was taken.
    private func post(_ record: TaskRecord, to url: String) async -> String? {
        let body = noticeBody(record, services.ambient.now())
        var request = CurlRequest(url: url)
        request.method = "POST"
        request.body = body
        request.timeoutSeconds = Supervisor.deliverySeconds
        request.connectTimeoutSeconds = Supervisor.deliverySeconds
        request.headers = [
            ("Content-Type", "application/json"), ("User-Agent", "aidevops-worker"), ("X-Aidevops-Task", record.id),
        ]
        if !settings.noticeSecret.isEmpty {
            let code = SHA256.hmac(body, key: Array(settings.noticeSecret.utf8))
            let digits = code.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
            request.headers.append(("X-Aidevops-Signature", "sha256=" + digits))
        }
        request.options = [CurlRequest.writesStatus]
        guard let command = Command(program: "curl", CurlRequest.arguments, environment: environment) else {
            return "curl isn't on PATH"
        }
        do throws(SystemError) {
            let result = try await services.reaper.run(
                command, input: request.configuration, outputLimit: Supervisor.maxAnswerBytes,
                timeout: .seconds(Supervisor.deliverySeconds + 1))
            guard result.succeeded, let answer = CurlRequest.parse(result.output) else {
                return result.errorText.isEmpty ? "curl ended with \(result.status)" : result.errorText
            }
            return (200..<300).contains(answer.status) ? nil : "it answered with status \(answer.status)"
        } catch { return error.description }
    }
}
