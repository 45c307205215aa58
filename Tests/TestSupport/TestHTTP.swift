import CSystem
import Glibc
import Supervision

/// A blocking HTTP client of one connection, for tests: it says what it's told, byte for byte.
package final class TestConnection {
    private let socket: Int32
    private var buffer: [UInt8] = []

    package struct Answer: Sendable {
        package var status: Int
        package var headers: [String: String]
        package var body: String
    }

    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    package init(port: UInt16) throws {
        socket = cs_connect("127.0.0.1", port)
        guard socket >= 0 else { throw Failure(description: "connect: \(SystemError.message(-socket))") }
        // A test that would hang fails instead.
        var limit = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(socket) }

    package func send(_ text: String) { send(Array(text.utf8)) }

    package func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { cs_send(socket, $0.baseAddress, Int64($0.count)) }
            if count < 0 { return }
            rest = rest.dropFirst(Int(count))
        }
    }

    package func finishSending() { cs_shutdown_write(socket) }

    /// Whether the server has closed, after reading what it still sent.
    package func isClosedByServer() -> Bool {
        while fill() {}
        return true
    }

    /// The next line, without its end.
    package func readLine() -> String? {
        while true {
            if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: buffer[..<end], as: UTF8.self)
                buffer.removeFirst(end + 1)
                return line.hasSuffix("\r") ? String(line.dropLast()) : line
            }
            guard fill() else { return nil }
        }
    }

    package func read(_ count: Int) -> [UInt8]? {
        while buffer.count < count { guard fill() else { return nil } }
        defer { buffer.removeFirst(count) }
        return Array(buffer[..<count])
    }

    private func fill() -> Bool {
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        let count = recv(socket, &chunk, chunk.count, 0)
        if count > 0 { buffer += chunk[..<count] }
        return count > 0
    }

    /// Reads the head of an answer.
    package func readHead() throws -> Answer {
        guard let first = readLine() else { throw Failure(description: "the connection was closed without an answer") }
        let words = first.split(separator: " ")
        guard words.count >= 2, let status = Int(words[1]) else {
            throw Failure(description: "not a status line: \(first)")
        }
        var headers: [String: String] = [:]
        while let line = readLine(), !line.isEmpty {
            let parts = line.split(separator: ":", maxSplits: 1)
            headers[parts[0].lowercased()] = String(parts[1].drop { $0 == " " })
        }
        return Answer(status: status, headers: headers, body: "")
    }

    /// Reads a whole answer; one without a body where `withoutBody` says so.
    package func readAnswer(withoutBody: Bool = false) throws -> Answer {
        var answer = try readHead()
        if withoutBody || answer.status == 204 { return answer }
        var body: [UInt8] = []
        if answer.headers["transfer-encoding"] == "chunked" {
            while let chunk = readChunk(), !chunk.isEmpty { body += chunk }
        } else if let length = answer.headers["content-length"].flatMap({ Int($0) }) {
            guard let bytes = read(length) else { throw Failure(description: "the body is cut short") }
            body = bytes
        } else {
            while fill() {}
            body = buffer
            buffer = []
        }
        answer.body = String(decoding: body, as: UTF8.self)
        return answer
    }

    /// The next chunk of a chunked body, empty at its end.
    package func readChunk() -> [UInt8]? {
        guard let line = readLine(), let size = Int(line, radix: 16), let bytes = read(size) else { return nil }
        _ = readLine()
        return bytes
    }

    /// Sends a request of the usual form and reads its answer.
    package func request(
        _ method: String, _ path: String, token: String? = nil, headers: [String] = [], body: [UInt8]? = nil
    )
        throws -> Answer
    {
        var head = "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\n"
        if let token { head += "Authorization: Bearer \(token)\r\n" }
        for header in headers { head += header + "\r\n" }
        if let body { head += "Content-Length: \(body.count)\r\n" }
        send(Array((head + "\r\n").utf8) + (body ?? []))
        return try readAnswer(withoutBody: method == "HEAD")
    }
}
