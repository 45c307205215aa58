import CSystem
import Glibc
package import Supervision

/// How long a client may take for what.
package struct HTTPDeadlines: Sendable {
    /// From the first byte of a request to the end of its head.
    package var head = Duration.seconds(10)
    /// From the end of the head to the end of the body.
    package var body = Duration.seconds(30)
    /// Between two requests.
    package var idle = Duration.seconds(75)
    /// Without a byte of the answer being taken.
    package var write = Duration.seconds(30)
    /// For what a client still sends after an answer that closes.
    package var linger = Duration.seconds(2)

    package init() {}
}

/// What a server does with requests.
package protocol HTTPHandler: Sendable {
    func respond(to request: HTTPRequest) async -> HTTPResponse
    /// The answer to a request that couldn't be read.
    func response(for failure: HTTPFailure) -> HTTPResponse
}

/// One connection: reads requests, has them answered in order, writes the answers. Its memory is bounded by one request,
/// one piece of an answer and the read budget.
package actor HTTPConnection: BodyWriter {
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    package nonisolated let bell: Wakeup
    private nonisolated let loop: EventLoop
    private let socket: Descriptor
    private let peer: String
    private let handler: any HTTPHandler
    private let deadlines: HTTPDeadlines
    private let dates: HTTPDate
    private var registration: EventLoop.Registration?
    private var parser = RequestParser()
    private var output: [UInt8] = []
    private var isReadable = true
    private var isWritable = true
    private var sawHangup = false
    private var hasLeft = false
    private var isStopping = false
    private var isStreaming = false
    private(set) var isIdle = true
    private var bellDeadline: Int64 = 0
    private var bellTimer: (token: EventLoop.TimerToken, due: Int64)?

    /// Output that is gathered before it's sent, while further requests are there already.
    private static let outputBatchBytes = 64 * 1024
    /// What is read and thrown away after an answer that closes.
    private static let lingerBytes = 4 << 20
    /// Requests answered in a row before the loop's other work has its turn.
    private static let pipelineBatch = 16

    init(
        socket: consuming Descriptor, peer: String, on loop: EventLoop, handler: any HTTPHandler,
        deadlines: HTTPDeadlines, dates: HTTPDate
    ) {
        self.socket = socket
        self.peer = peer
        self.loop = loop
        self.handler = handler
        self.deadlines = deadlines
        self.dates = dates
        bell = Wakeup(on: loop)
    }

    package var isOpen: Bool { !hasLeft && !isStopping }

    /// Serves the connection to its end.
    func run() async {
        do throws(SystemError) {
            registration = try loop.add(socket.number, [.read, .write, .edge]) { [weak self] readiness in
                self?.assumeIsolated { $0.becameReady(readiness) }
            }
        } catch { return }
        await serve()
        if let registration { loop.remove(registration) }
        if let bellTimer { loop.cancel(bellTimer.token) }
    }

    private func becameReady(_ readiness: EventLoop.Readiness) {
        if readiness.contains(.read) { isReadable = true }
        if readiness.contains(.write) { isWritable = true }
        if readiness.contains(.hangup) {
            (isReadable, sawHangup) = (true, true)
            // While an answer streams, a client that sends no more has left; else it may have said all that it wanted.
            if isStreaming { hasLeft = true }
        }
        bell.signal()
    }

    /// Closes when idle, or else after the answer that is being made.
    func stop() {
        isStopping = true
        bell.signal()
    }

    /// Closes now: the place is needed.
    func shed() {
        hasLeft = true
        bell.signal()
    }

    private func serve() async {
        var answered = 0
        while true {
            switch parser.next() {
            case .needsMore:
                guard await flush(), await receive() else { return }
            case .awaitsContinue:
                output += Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)
            case .request(var request):
                isIdle = false
                request.peer = peer
                guard await answer(request) else { return }
                isIdle = true
                answered += 1
                if answered % HTTPConnection.pipelineBatch == 0 { await Task.yield() }
            case .failed(let failure):
                await refuse(failure)
                return
            }
        }
    }

    private func refuse(_ failure: HTTPFailure) async {
        var response = handler.response(for: failure)
        response.closes = true
        guard await send(response, to: nil) else { return }
        await linger()
    }

    // MARK: Reading

    /// Reads what comes next; false when nothing will.
    private func receive() async -> Bool {
        let deadline = cs_monotonic_ns() + receiveLimit.nanoseconds
        while true {
            if hasLeft || (isStopping && !parser.isWithinRequest) { return false }
            if isReadable {
                switch loop.read(socket) {
                case .bytes(let bytes):
                    // A short read has taken all; only the end, told once, may still be behind it.
                    if bytes.count < EventLoop.readBudget && !sawHangup { isReadable = false }
                    parser.append(bytes)
                    return true
                case .end, .failed: return false
                case .wouldBlock: isReadable = false
                }
            }
            guard cs_monotonic_ns() < deadline else { return await timedOut() }
            isIdle = !parser.isWithinRequest
            ring(at: deadline)
            await bell.wait()
        }
    }

    /// Signals the bell at a deadline. One timer serves a connection from request to request: it's moved when it comes up,
    /// not at each of them.
    private func ring(at deadline: Int64) {
        bellDeadline = deadline
        if let bellTimer {
            if bellTimer.due <= deadline { return }
            loop.cancel(bellTimer.token)
        }
        armBell()
    }

    private func armBell() {
        let left = Duration.nanoseconds(max(0, bellDeadline - cs_monotonic_ns()))
        let token = loop.schedule(after: left) { [weak self] in
            self?.assumeIsolated { connection in
                connection.bellTimer = nil
                if cs_monotonic_ns() < connection.bellDeadline {
                    connection.armBell()
                } else {
                    connection.bell.signal()
                }
            }
        }
        bellTimer = (token, bellDeadline)
    }

    private var receiveLimit: Duration {
        if parser.isWithinBody { return deadlines.body }
        return parser.isWithinRequest ? deadlines.head : deadlines.idle
    }

    private func timedOut() async -> Bool {
        if parser.isWithinRequest { await refuse(HTTPFailure(408, "The request took too long to arrive.")) }
        return false
    }

    /// Lets the client read the answer before the connection is reset by what it was still sending (RFC 9112, 9.6).
    private func linger() async {
        cs_shutdown_write(socket.number)
        let deadline = cs_monotonic_ns() + deadlines.linger.nanoseconds
        var left = HTTPConnection.lingerBytes
        isReadable = true
        while left > 0, !hasLeft, !isStopping {
            if isReadable {
                switch loop.read(socket) {
                case .bytes(let bytes): left -= bytes.count
                case .end, .failed: return
                case .wouldBlock: isReadable = false
                }
            } else {
                let time = deadline - cs_monotonic_ns()
                guard time > 0 else { return }
                await bell.wait(timeout: .nanoseconds(time))
            }
        }
    }

    // MARK: Writing

    /// Answers one request; false when the connection is to close.
    private func answer(_ request: HTTPRequest) async -> Bool {
        var response = await handler.respond(to: request)
        if !request.keepsAlive || isStopping { response.closes = true }
        guard await send(response, to: request) else { return false }
        if response.closes {
            if await flush() { await linger() }
            return false
        }
        return true
    }

    private func send(_ response: HTTPResponse, to request: HTTPRequest?) async -> Bool {
        let withoutBody = request?.method == "HEAD"
        switch response.body {
        case .bytes(let bytes):
            writeHead(of: response, for: request, framing: response.status == 204 ? .none : .length(bytes.count))
            if !withoutBody { output += bytes }
            return output.count < HTTPConnection.outputBatchBytes && !response.closes ? true : await flush()
        case .stream(let write):
            let isChunked = request?.minorVersion == 1
            var response = response
            if !isChunked { response.closes = true }
            writeHead(of: response, for: request, framing: isChunked ? .chunks : .none)
            guard await flush() else { return false }
            if withoutBody { return !response.closes }
            return await stream(write, isChunked: isChunked) && !response.closes
        }
    }

    private func stream(_ body: @Sendable (any BodyWriter) async -> Void, isChunked: Bool) async -> Bool {
        isStreaming = true
        chunks = isChunked
        await body(self)
        isStreaming = false
        guard !hasLeft else { return false }
        if isChunked { output += Array("0\r\n\r\n".utf8) }
        return await flush()
    }

    /// How pieces of the streamed body are framed.
    private var chunks = true

    package func write(_ bytes: [UInt8]) async -> Bool {
        guard !hasLeft else { return false }
        guard !bytes.isEmpty else { return isOpen }
        if chunks {
            output += Array((String(bytes.count, radix: 16) + "\r\n").utf8)
            output += bytes
            output += Array("\r\n".utf8)
        } else {
            output += bytes
        }
        return await flush()
    }

    private func writeHead(of response: HTTPResponse, for request: HTTPRequest?, framing: Framing) {
        if response.status == 200 {
            output += HTTPConnection.ok
        } else {
            output += "HTTP/1.1 \(response.status) \(HTTPResponse.phrase(for: response.status))\r\n".utf8
        }
        output += dates.line()
        output += response.headers.bytes
        switch framing {
        case .none: break
        case .length(let count):
            output += HTTPConnection.contentLength
            output.appendDecimal(UInt64(count))
            output += HTTPConnection.lineEnd
        case .chunks: output += "Transfer-Encoding: chunked\r\n".utf8
        }
        if response.closes {
            output += "Connection: close\r\n".utf8
        } else if request?.minorVersion == 0 {
            output += "Connection: keep-alive\r\n".utf8
        }
        output += HTTPConnection.lineEnd
    }

    /// How the end of a body is told.
    private enum Framing {
        case none
        case length(Int)
        case chunks
    }

    private static let ok = Array("HTTP/1.1 200 OK\r\n".utf8)
    private static let contentLength = Array("Content-Length: ".utf8)
    private static let lineEnd = Array("\r\n".utf8)

    /// Sends all that is gathered; false when the client is gone or takes nothing for too long.
    private func flush() async -> Bool {
        var sent = 0
        while sent < output.count {
            guard !hasLeft else { return false }
            if isWritable {
                let count = unsafe output.withUnsafeBytes {
                    unsafe cs_send(
                        socket.number, UnsafeRawBufferPointer(rebasing: $0[sent...]).baseAddress, Int64($0.count - sent)
                    )
                }
                if count >= 0 {
                    sent += Int(count)
                } else if count == -Int64(EAGAIN) {
                    isWritable = false
                } else {
                    hasLeft = true
                }
                continue
            }
            guard await waitUntilWritable() else { return false }
        }
        if output.capacity > 2 * HTTPConnection.outputBatchBytes {
            output = []
        } else {
            output.removeAll(keepingCapacity: true)
        }
        return true
    }

    private func waitUntilWritable() async -> Bool {
        let deadline = cs_monotonic_ns() + deadlines.write.nanoseconds
        while !isWritable && !hasLeft {
            let left = deadline - cs_monotonic_ns()
            if left <= 0 { hasLeft = true } else { await bell.wait(timeout: .nanoseconds(left)) }
        }
        return !hasLeft
    }
}
