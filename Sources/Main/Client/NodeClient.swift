import FoundationEssentials
import Supervision

/// Talks to a node's API, through the system's curl: TLS, proxies and certificates are as the user has set them up there.
///
/// What is secret goes to curl over its standard input, never in an argument.
struct NodeClient: Sendable {
    /// Without a slash at its end.
    let url: String
    let token: String
    /// Seconds for a whole request; a followed log has none.
    var timeout = 30
    var connectTimeout = 5

    struct Answer: Sendable {
        var status: Int
        var body: [UInt8]

        /// The error's sentence, or what there is: a proxy's answer may be no JSON.
        var message: String {
            (try? JSONValue(bytes: body))?["error"]?.string ?? "the node answered with status \(status)"
        }

        /// - Throws: `CommandFailure` with the node's own sentence for any status but `expected`.
        func json(_ expected: Int = 200) throws -> JSONValue {
            guard status == expected else { throw CommandFailure(message: message) }
            guard let json = try? JSONValue(bytes: body) else {
                throw CommandFailure(message: "the node answered with what isn't JSON")
            }
            return json
        }
    }

    /// No answer came.
    struct Unreachable: Error {
        var message: String
        /// Whether it's certain that the node got nothing of the request.
        var isCertain: Bool
    }

    init(url: String, token: String) {
        self.url = url.hasSuffix("/") ? String(url.dropLast()) : url
        self.token = token
    }

    func get(_ path: String) throws -> Answer { try request("GET", path) }

    func request(_ method: String, _ path: String, json: [UInt8]? = nil) throws -> Answer {
        var request = request(method, to: path)
        request.timeoutSeconds = timeout
        request.options = [CurlRequest.writesStatus]
        if let json {
            request.headers.append(("Content-Type", "application/json"))
            request.body = json
        }
        let result = try curl(request)
        guard result.succeeded else { throw NodeClient.unreachable(result, url) }
        guard let answer = CurlRequest.parse(result.output) else {
            throw Unreachable(message: "\(url) answered in no form that is known", isCertain: false)
        }
        return Answer(status: answer.status, body: answer.body)
    }

    /// Follows an event stream, handing over what comes until the node ends it.
    /// - Parameters:
    ///   - lastEventID: goes on behind this event.
    ///   - interrupt: a descriptor that ends it when it becomes readable.
    func follow(
        _ path: String, lastEventID: UInt64?, interrupt: Int32 = -1, onBytes: @escaping ([UInt8]) -> Void
    ) throws {
        var request = request("GET", to: path)
        request.headers.append(("Accept", "text/event-stream"))
        request.options = ["no-buffer", "fail"]
        if let lastEventID { request.headers.append(("Last-Event-ID", String(lastEventID))) }
        let result = try curl(request, interrupt: interrupt, onOutput: onBytes)
        guard result.succeeded else { throw NodeClient.unreachable(result, url) }
    }

    private func request(_ method: String, to path: String) -> CurlRequest {
        var request = CurlRequest(url: url + path)
        request.method = method
        request.connectTimeoutSeconds = connectTimeout
        if !token.isEmpty { request.headers.append(("Authorization", "Bearer \(token)")) }
        return request
    }

    private func curl(_ request: CurlRequest, interrupt: Int32 = -1, onOutput: (([UInt8]) -> Void)? = nil) throws
        -> Command.Result
    {
        guard let command = Command(program: "curl", CurlRequest.arguments, environment: Environment.variables) else {
            throw CommandFailure(message: "curl isn't on PATH; install it, on Debian and Ubuntu with: apt install curl")
        }
        return try command.run(input: request.configuration, interrupt: interrupt, onOutput: onOutput)
    }

    private static func unreachable(_ result: Command.Result, _ url: String) -> Unreachable {
        let isCertain = CurlRequest.reachedNobody(result.status)
        let reason = result.errorText.isEmpty ? "curl ended with \(result.status)" : result.errorText
        return Unreachable(message: "\(url) can't be reached: \(reason)", isCertain: isCertain)
    }
}
