import CSystem
package import FoundationEssentials
package import Supervision

/// What the API shows of the configuration, and what it checks requests by; replaced as a whole when that changes.
package struct APISettings: Sendable {
    package var version = ""
    /// Empty: nobody is let in.
    package var token = ""
    /// The addresses whose X-Forwarded-For is believed.
    package var trustedProxies: [String] = []
    package var configurationProblems: [String] = []

    package init() {}
}

/// The HTTP API: it decodes a request, asks the supervisor, and encodes what it says.
///
/// - Note: `@unchecked Sendable` holds because its state is only used on the event loop, where all connections live.
package final class NodeAPI: HTTPHandler, @unchecked Sendable {
    let supervisor: Supervisor
    let pulse: Pulse
    private(set) var settings: APISettings
    private var authenticator: Authenticator
    /// By the index of the match.
    private(set) var requestFigures = [RequestFigures](
        repeating: RequestFigures(), count: Route.Match.names.count)
    /// Lines that followers were told they missed.
    var missedLines: UInt64 = 0
    private var lastRequest: UInt64 = 0

    /// What came of the requests of one route.
    struct RequestFigures {
        private(set) var counts: [(status: Int, count: Int)] = []
        private(set) var times = Histogram(bounds: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5])

        mutating func add(_ status: Int) {
            if let index = counts.firstIndex(where: { $0.status == status }) {
                counts[index].count += 1
            } else {
                counts.append((status, 1))
            }
        }

        mutating func add(_ status: Int, seconds: Double) {
            add(status)
            times.add(seconds)
        }
    }

    private let log: NodeLog

    package init(supervisor: Supervisor, pulse: Pulse, settings: APISettings, log: NodeLog) {
        self.supervisor = supervisor
        self.pulse = pulse
        self.log = log
        self.settings = settings
        authenticator = Authenticator(token: settings.token)
    }

    /// What is posted of an ended task: what GET /workers/ID says of it.
    package static let noticeBody: @Sendable (TaskRecord, Date) -> [UInt8] = { record, now in
        var view = WorkerView(record, now: now, isDetailed: true)
        view.notices = nil
        return JSON.encode(view)
    }

    package func update(_ settings: APISettings) {
        if settings.token != self.settings.token { authenticator.replace(token: settings.token) }
        self.settings = settings
    }

    package func response(for failure: HTTPFailure) -> HTTPResponse {
        requestFigures[Route.Match.invalid].add(failure.status)
        return .error(failure.status, ErrorView(failure.message))
    }

    package func respond(to request: HTTPRequest) async -> HTTPResponse {
        let began = cs_monotonic_ns()
        let match = Route.find(method: request.method, path: request.path)
        var response: HTTPResponse
        // What is asked for most waits for nobody.
        if case .found(.health, _, _) = match {
            response = NodeAPI.healthy
        } else {
            response = await respond(to: request, match)
        }
        lastRequest += 1
        response.headers.append("X-Request-Id", lastRequest)
        let seconds = Double(cs_monotonic_ns() - began) / 1e9
        requestFigures[match.index].add(response.status, seconds: seconds)
        if log.level == .debug {
            log.debug(
                "A request was answered.",
                [
                    "request_id": String(lastRequest), "method": request.method,
                    "path": request.path.joined(separator: "/"),
                    "status": String(response.status), "seconds": String(seconds), "peer": request.peer,
                ])
        }
        return response
    }

    private func respond(to request: HTTPRequest, _ match: Route.Match) async -> HTTPResponse {
        switch match {
        case .notFound: return .error(404, ErrorView("There is nothing at this path."))
        case .methodNotAllowed(let allowed):
            var response = HTTPResponse.error(405, ErrorView("This path doesn't take \(request.method)."))
            response.headers.append(("Allow", allowed))
            return response
        case .options(let allowed): return HTTPResponse(204, headers: [("Allow", allowed)])
        case .found(let endpoint, _, let id):
            if endpoint.needsToken, let refusal = refusal(of: request) { return refusal }
            return await answer(endpoint, id: id, request)
        }
    }

    private func refusal(of request: HTTPRequest) -> HTTPResponse? {
        switch authenticator.check(request, client: clientAddress(of: request), now: cs_monotonic_ns()) {
        case .accepted: return nil
        case .refused:
            let hint = settings.token.isEmpty ? " This node has no token configured, so nobody has." : ""
            var response = HTTPResponse.error(
                401, ErrorView("This needs the node's token: Authorization: Bearer TOKEN.\(hint)"))
            response.headers.append(("WWW-Authenticate", "Bearer"))
            return response
        case .throttled(let seconds):
            return .retryLater(
                429, ErrorView("Too many requests with a wrong token came from this address."), after: seconds)
        }
    }

    /// The peer, or whom a trusted proxy names: the last address that no trusted proxy has.
    private func clientAddress(of request: HTTPRequest) -> String {
        guard settings.trustedProxies.contains(request.peer) else { return request.peer }
        let addresses = request.headers.all("x-forwarded-for").flatMap { $0.split(separator: ",") }
        return addresses.last { !settings.trustedProxies.contains(String($0.withoutBlanks)) }
            .map { String($0.withoutBlanks.prefix(64)) } ?? request.peer
    }

    /// Asked for so often that it's encoded once.
    private static let healthy = HTTPResponse.json(200, HealthView())

    private func answer(_ endpoint: Endpoint, id: String, _ request: HTTPRequest) async -> HTTPResponse {
        switch endpoint {
        case .health: return NodeAPI.healthy
        case .status: return await status()
        case .file(let file): return file.response
        case .tasks: return await tasks(request)
        case .events: return await events(request)
        case .metrics: return await metrics()
        case .openapi: return .json(200, bytes: PackageResources.openapi_json)
        case .dispatch: return await dispatch(request)
        case .workers: return await workers()
        case .worker: return await worker(id)
        case .cancel: return await cancel(id)
        case .pulse: return await pulseStatus()
        case .pulseRound: return await pulseRound(request)
        case .changes: return await changes(id)
        case .logs: return await logs(id, request)
        }
    }
}

extension HTTPResponse {
    /// What every answer of the API says: not to be stored, and of the type that it says.
    private static func apiHeaders(_ type: String) -> [(name: String, value: String)] {
        [("Content-Type", type), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    }

    static func json(_ status: Int, _ value: some Encodable) -> HTTPResponse { json(status, bytes: JSON.encode(value)) }

    static func json(_ status: Int, bytes: [UInt8]) -> HTTPResponse {
        HTTPResponse(status, headers: apiHeaders("application/json"), body: .bytes(bytes))
    }

    static func plain(_ body: Body) -> HTTPResponse {
        HTTPResponse(200, headers: apiHeaders("text/plain; charset=utf-8") + [("X-Accel-Buffering", "no")], body: body)
    }

    static func events(_ body: Body) -> HTTPResponse {
        let headers = [
            ("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache, no-transform"),
            ("X-Content-Type-Options", "nosniff"), ("X-Accel-Buffering", "no"),
        ]
        return HTTPResponse(200, headers: headers, body: body)
    }

    static func error(_ status: Int, _ error: ErrorView) -> HTTPResponse { json(status, error) }

    static func retryLater(_ status: Int, _ error: ErrorView, after seconds: Int) -> HTTPResponse {
        var response = HTTPResponse.error(status, error)
        response.headers.append(("Retry-After", String(seconds)))
        return response
    }
}
