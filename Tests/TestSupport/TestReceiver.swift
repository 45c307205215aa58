import CSystem
import Glibc
import Supervision

/// Somebody who is told by HTTP: takes one request after the other, and answers each as the test says.
package final class TestReceiver {
    package struct Request {
        package var line: String
        package var headers: [String: String]
        package var body: [UInt8]
    }

    package let port: UInt16
    private let listener: Int32

    package init() throws {
        var port: UInt16 = 0
        listener = cs_listen("127.0.0.1", 0, 16, &port)
        self.port = port
        guard listener >= 0 else { throw SystemError("listen", errno: -listener) }
    }

    deinit { close(listener) }

    /// Waits for the next request, and answers it.
    package func receive(answering status: Int, body answer: String = "") throws -> Request {
        var ready: Int32 = 0
        var listener = listener
        guard cs_poll_readable(&listener, &ready, 1, 60_000) > 0 else {
            throw SystemError("no request", errno: ETIMEDOUT)
        }
        var address = [CChar](repeating: 0, count: 64)
        let connection = cs_accept(listener, &address, 64)
        guard connection >= 0 else { throw SystemError("accept", errno: -connection) }
        defer { close(connection) }
        var bytes: [UInt8] = []
        func more() throws {
            var ready: Int32 = 0
            var watched = connection
            guard cs_poll_readable(&watched, &ready, 1, 60_000) > 0 else { throw SystemError("read", errno: ETIMEDOUT) }
            var chunk = [UInt8](repeating: 0, count: 65_536)
            let count = read(connection, &chunk, chunk.count)
            guard count > 0 else { throw SystemError("read", errno: ECONNRESET) }
            bytes += chunk[..<count]
        }
        let blank = Array("\r\n\r\n".utf8)
        var end = cs_find(bytes, 0, blank, 4)
        while end < 0 {
            try more()
            end = cs_find(bytes, Int64(bytes.count), blank, 4)
        }
        let lines = String(decoding: bytes[..<Int(end)], as: UTF8.self).split(separator: "\r\n")
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.count == 2 { headers[parts[0].lowercased()] = String(parts[1]).trimmed }
        }
        let length = headers["content-length"].flatMap { Int($0) } ?? 0
        while bytes.count < Int(end) + 4 + length { try more() }
        let text = "HTTP/1.1 \(status) X\r\nContent-Length: \(answer.utf8.count)\r\nConnection: close\r\n\r\n\(answer)"
        _ = cs_send(connection, Array(text.utf8), Int64(text.utf8.count))
        return Request(
            line: lines.first.map(String.init) ?? "", headers: headers,
            body: Array(bytes[(Int(end) + 4)..<(Int(end) + 4 + length)]))
    }
}
