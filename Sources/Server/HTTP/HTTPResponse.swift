package import Supervision

/// An answer, its body whole or written bit by bit.
package struct HTTPResponse: Sendable {
    package enum Body: Sendable {
        case bytes([UInt8])
        /// Writes the body to the connection, until it returns.
        case stream(@Sendable (any BodyWriter) async -> Void)
    }

    package var status: Int
    package var headers: [(name: String, value: String)]
    package var body: Body
    /// Closes the connection after this answer.
    package var closes = false

    package init(_ status: Int, headers: [(name: String, value: String)] = [], body: Body = .bytes([])) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    package static func text(_ status: Int, _ text: String, type: String = "text/plain; charset=utf-8") -> HTTPResponse
    {
        HTTPResponse(status, headers: [("Content-Type", type)], body: .bytes(Array(text.utf8)))
    }

    static func phrase(for status: Int) -> String {
        switch status {
        case 200: "OK"
        case 202: "Accepted"
        case 204: "No Content"
        case 304: "Not Modified"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 417: "Expectation Failed"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 503: "Service Unavailable"
        case 505: "HTTP Version Not Supported"
        default: "Status \(status)"
        }
    }
}

/// Where the body of a streamed answer goes.
package protocol BodyWriter: Actor {
    /// Signalled when the client leaves or the server stops, and by whatever else the writer of the body subscribes it to.
    nonisolated var bell: Wakeup { get }
    /// Sends a piece, waiting for a slow client.
    /// - Returns: false once nobody listens any more.
    func write(_ bytes: [UInt8]) async -> Bool
    /// Whether the client is still there and the server isn't stopping.
    var isOpen: Bool { get }
}
