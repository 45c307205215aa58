import CSystem
package import Supervision

/// What the API shows of the configuration, and what it checks requests by; replaced as a whole when that changes.
package struct APISettings: Sendable {
    package var version = ""
    /// Empty: nobody is let in.
    package var token = ""
    /// The addresses whose X-Forwarded-For is believed.
    package var trustedProxies: [String] = []
    package var pulseEnabled = false
    package var configurationProblems: [String] = []

    package init() {}
}

/// The HTTP API: it decodes a request, asks the supervisor, and encodes what it says.
///
/// - Note: `@unchecked Sendable` holds because its state is only used on the event loop, where all connections live.
package final class NodeAPI: HTTPHandler, @unchecked Sendable {
    let supervisor: Supervisor
    private(set) var settings: APISettings
    private var authenticator: Authenticator

    package init(supervisor: Supervisor, settings: APISettings) {
        self.supervisor = supervisor
        self.settings = settings
        authenticator = Authenticator(token: settings.token)
    }

    package func update(_ settings: APISettings) {
        if settings.token != self.settings.token { authenticator.replace(token: settings.token) }
        self.settings = settings
    }

    package func response(for failure: HTTPFailure) -> HTTPResponse {
        .error(failure.status, ErrorView(failure.message))
    }

    package func respond(to request: HTTPRequest) async -> HTTPResponse {
        switch Route.find(method: request.method, path: request.path) {
        case .notFound: return .error(404, ErrorView("There is nothing at this path."))
        case .methodNotAllowed(let allowed):
            var response = HTTPResponse.error(405, ErrorView("This path doesn't take \(request.method)."))
            response.headers.append(("Allow", allowed))
            return response
        case .options(let allowed): return HTTPResponse(204, headers: [("Allow", allowed)])
        case .found(let endpoint, let id):
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

    private func answer(_ endpoint: Endpoint, id: String, _ request: HTTPRequest) async -> HTTPResponse {
        switch endpoint {
        case .health: return .json(200, HealthView())
        case .status: return await status()
        case .file(let file): return file.response
        case .tasks: return await tasks(request)
        case .dispatch: return await dispatch(request)
        case .workers: return await workers()
        case .worker: return await worker(id)
        case .cancel: return await cancel(id)
        case .logs: return await logs(id, request)
        }
    }
}

extension HTTPResponse {
    /// What every answer of the API says: not to be stored, and of the type that it says.
    private static func apiHeaders(_ type: String) -> [(name: String, value: String)] {
        [("Content-Type", type), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    }

    static func json(_ status: Int, _ value: some Encodable) -> HTTPResponse {
        HTTPResponse(status, headers: apiHeaders("application/json"), body: .bytes(JSON.encode(value)))
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
