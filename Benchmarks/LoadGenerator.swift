import CSystem
import Glibc
import Supervision
import TestSupport

/// Keeps one request under way on each of many connections, on an epoll loop of its own.
struct LoadGenerator {
    struct Result {
        /// In µs, of each request.
        var latencies: [Double]
        var seconds: Double
        var requestsPerSecond: Double { Double(latencies.count) / seconds }
    }

    let port: UInt16
    let path: String
    var token: String?

    private static let longestRun = 60_000_000_000

    /// Answers are read by their Content-Length; any but a 200 is a fault of the benchmark.
    func run(connections: Int, requests: Int) throws -> Result {
        let authorization = token.map { "Authorization: Bearer \($0)\r\n" } ?? ""
        let request = Array("GET \(path) HTTP/1.1\r\nHost: localhost\r\n\(authorization)\r\n".utf8)
        let epoll = cs_epoll_create()
        defer { close(epoll) }
        var sockets: [Int32] = []
        defer { for socket in sockets { close(socket) } }
        for index in 0..<connections {
            let socket = cs_connect("127.0.0.1", port)
            guard socket >= 0 else { throw SystemError("connect", errno: -socket) }
            sockets.append(socket)
            _ = cs_set_nonblocking(socket)
            _ = cs_epoll_add(epoll, socket, UInt32(CS_READ), UInt64(index))
        }
        var sent = [Int64](repeating: 0, count: connections)
        var partial = [[UInt8]](repeating: [], count: connections)
        var latencies: [Double] = []
        latencies.reserveCapacity(requests)
        var started = 0
        func start(_ index: Int) {
            sent[index] = cs_monotonic_ns()
            started += 1
            _ = cs_send(sockets[index], request, Int64(request.count))
        }
        let began = cs_monotonic_ns()
        for index in 0..<min(connections, requests) { start(index) }
        var events = [cs_event](repeating: cs_event(), count: 256)
        var chunk = [UInt8](repeating: 0, count: 256 * 1024)
        while latencies.count < requests, cs_monotonic_ns() - began < LoadGenerator.longestRun {
            let count = cs_epoll_wait(epoll, &events, 256, 1000)
            for event in events.prefix(Int(max(0, count))) {
                let index = Int(event.data)
                let got = read(sockets[index], &chunk, chunk.count)
                guard got > 0 else { throw SystemError("the answer was cut", errno: ECONNRESET) }
                let isWhole: Bool
                if partial[index].isEmpty {
                    isWhole = try LoadGenerator.isWhole(chunk, got)
                    if !isWhole { partial[index] = Array(chunk[..<got]) }
                } else {
                    partial[index] += chunk[..<got]
                    isWhole = try LoadGenerator.isWhole(partial[index], partial[index].count)
                }
                guard isWhole else { continue }
                partial[index].removeAll(keepingCapacity: true)
                latencies.append(Double(cs_monotonic_ns() - sent[index]) / 1000)
                if started < requests { start(index) }
            }
        }
        return Result(latencies: latencies, seconds: Double(cs_monotonic_ns() - began) / 1e9)
    }

    private static let headEnd = Array("\r\n\r\n".utf8)
    private static let lengthField = Array("Content-Length: ".utf8)
    private static let chunkEnd = Array("0\r\n\r\n".utf8)

    private static func isWhole(_ bytes: [UInt8], _ count: Int) throws -> Bool {
        let end = cs_find(bytes, Int64(count), headEnd, 4)
        guard end >= 0 else { return false }
        guard bytes.prefix(12).elementsEqual("HTTP/1.1 200".utf8) else {
            throw SystemError(String(decoding: bytes.prefix(200), as: UTF8.self), errno: EPROTO)
        }
        let field = cs_find(bytes, end, lengthField, Int64(lengthField.count))
        // Node answers in chunks.
        guard field >= 0 else { return bytes[..<count].suffix(5).elementsEqual(chunkEnd) }
        var length = 0
        for byte in bytes[(Int(field) + lengthField.count)...] {
            guard (0x30...0x39).contains(byte) else { break }
            length = length * 10 + Int(byte - 0x30)
        }
        return count >= Int(end) + 4 + length
    }
}
