/// One HTTP request through the system's curl: TLS, proxies and certificates are as the user has set them up there.
///
/// All of it goes to curl over its standard input, so that nothing secret is ever an argument.
package struct CurlRequest: Sendable {
    package var url: String
    package var method = "GET"
    package var headers: [(name: String, value: String)] = []
    package var body: [UInt8]?
    package var connectTimeoutSeconds = 5
    /// For the whole request; nil: none.
    package var timeoutSeconds: Int?
    /// Further lines of curl's configuration file.
    package var options: [String] = []

    package init(url: String) { self.url = url }

    /// curl's own arguments: its configuration comes over standard input, and the user's isn't read.
    package static let arguments = ["--disable", "--config", "-"]
    /// What `write-out` puts behind the body.
    package static let writesStatus = #"write-out = "\n%{http_code}""#

    package var configuration: [UInt8] {
        var lines = [
            "url = \(CurlRequest.quoted(url))", "request = \(method)", "silent", "show-error",
            "connect-timeout = \(connectTimeoutSeconds)", #"proto = "=http,https""#,
        ]
        if let timeoutSeconds { lines.append("max-time = \(timeoutSeconds)") }
        lines += headers.map { "header = \(CurlRequest.quoted("\($0.name): \($0.value)"))" }
        if let body { lines.append("data-binary = \(CurlRequest.quoted(String(decoding: body, as: UTF8.self)))") }
        return Array(((lines + options).joined(separator: "\n") + "\n").utf8)
    }

    /// Whether curl's exit means that nothing of the request was received: 5 and 6 names that don't resolve, 7 no connection.
    package static func reachedNobody(_ status: ChildExit.Status) -> Bool {
        [.exited(5), .exited(6), .exited(7)].contains(status)
    }

    /// The body and the status of an answer that `writesStatus` was asked for; nil for what isn't one.
    package static func parse(_ output: [UInt8]) -> (status: Int, body: [UInt8])? {
        guard let newline = output.lastIndex(of: UInt8(ascii: "\n")),
            let status = Int(String(decoding: output[(newline + 1)...], as: UTF8.self))
        else { return nil }
        return (status, Array(output[..<newline]))
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
