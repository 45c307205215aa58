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
        var lines = configuration(method, path)
        lines.append("max-time = \(timeout)")
        lines.append(#"write-out = "\n%{http_code}""#)
        if let json {
            lines.append(#"header = "Content-Type: application/json""#)
            lines.append("data-binary = \(NodeClient.quoted(String(decoding: json, as: UTF8.self)))")
        }
        let result = try curl(lines)
        guard result.succeeded else { throw NodeClient.unreachable(result, url) }
        guard let newline = result.output.lastIndex(of: UInt8(ascii: "\n")),
            let status = Int(String(decoding: result.output[(newline + 1)...], as: UTF8.self))
        else { throw Unreachable(message: "\(url) answered in no form that is known", isCertain: false) }
        return Answer(status: status, body: Array(result.output[..<newline]))
    }

    /// Follows an event stream, handing over what comes until the node ends it.
    /// - Parameters:
    ///   - lastEventID: goes on behind this event.
    ///   - interrupt: a descriptor that ends it when it becomes readable.
    func follow(
        _ path: String, lastEventID: UInt64?, interrupt: Int32 = -1, onBytes: @escaping ([UInt8]) -> Void
    ) throws {
        var lines = configuration("GET", path)
        lines += [#"header = "Accept: text/event-stream""#, "no-buffer", "fail"]
        if let lastEventID { lines.append(#"header = "Last-Event-ID: \#(lastEventID)""#) }
        let result = try curl(lines, interrupt: interrupt, onOutput: onBytes)
        guard result.succeeded else { throw NodeClient.unreachable(result, url) }
    }

    private func configuration(_ method: String, _ path: String) -> [String] {
        var lines = [
            "url = \(NodeClient.quoted(url + path))", "request = \(method)", "silent", "show-error",
            "connect-timeout = \(connectTimeout)", #"proto = "=http,https""#,
        ]
        if !token.isEmpty { lines.append("header = \(NodeClient.quoted("Authorization: Bearer \(token)"))") }
        return lines
    }

    private func curl(_ lines: [String], interrupt: Int32 = -1, onOutput: (([UInt8]) -> Void)? = nil) throws
        -> Command.Result
    {
        let arguments = ["--disable", "--config", "-"]
        guard let command = Command(program: "curl", arguments, environment: Environment.variables) else {
            throw CommandFailure(message: "curl isn't on PATH; install it, on Debian and Ubuntu with: apt install curl")
        }
        return try command.run(
            input: Array((lines.joined(separator: "\n") + "\n").utf8), interrupt: interrupt, onOutput: onOutput)
    }

    /// curl's exit codes: 5 and 6 names that don't resolve, 7 no connection.
    private static func unreachable(_ result: Command.Result, _ url: String) -> Unreachable {
        let isCertain = [.exited(5), .exited(6), .exited(7)].contains(result.status)
        let reason = result.errorText.isEmpty ? "curl ended with \(result.status)" : result.errorText
        return Unreachable(message: "\(url) can't be reached: \(reason)", isCertain: isCertain)
    }

    /// A value in a curl configuration.
    private static func quoted(_ text: String) -> String {
        var result = "\""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            default: result.unicodeScalars.append(character)
            }
        }
        return result + "\""
    }
}
