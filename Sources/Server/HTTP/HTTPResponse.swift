package import Supervision

/// Header fields as they are sent: written out once, when they are added.
package struct HeaderBlock: Sendable {
    private(set) var bytes: [UInt8] = []

    init(_ fields: [(name: String, value: String)]) { for field in fields { append(field) } }

    mutating func append(_ field: (name: String, value: String)) {
        bytes.append(contentsOf: field.name.utf8)
        bytes.append(contentsOf: [UInt8(ascii: ":"), UInt8(ascii: " ")])
        bytes.append(contentsOf: field.value.utf8)
        bytes.append(contentsOf: [UInt8(ascii: "\r"), UInt8(ascii: "\n")])
    }

    mutating func append(_ name: StaticString, _ number: UInt64) {
        unsafe bytes.append(contentsOf: UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        bytes.append(contentsOf: [UInt8(ascii: ":"), UInt8(ascii: " ")])
        bytes.appendDecimal(number)
        bytes.append(contentsOf: [UInt8(ascii: "\r"), UInt8(ascii: "\n")])
    }
}

extension [UInt8] {
    mutating func appendDecimal(_ number: UInt64) {
        var divisor: UInt64 = 1
        while number / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            append(UInt8(ascii: "0") + UInt8(number / divisor % 10))
            divisor /= 10
        }
    }
}

/// An answer, its body whole or written bit by bit.
package struct HTTPResponse: Sendable {
    package enum Body: Sendable {
        case bytes([UInt8])
        /// Writes the body to the connection, until it returns.
        case stream(@Sendable (any BodyWriter) async -> Void)
    }

    package var status: Int
    package var headers: HeaderBlock
    package var body: Body
    /// Closes the connection after this answer.
    package var closes = false

    package init(_ status: Int, headers: [(name: String, value: String)] = [], body: Body = .bytes([])) {
        self.status = status
        self.headers = HeaderBlock(headers)
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
