import CSystem
import Glibc
package import Supervision

/// Listens, and runs a task for each connection, up to a number of them.
package actor HTTPServer {
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    package nonisolated let port: UInt16
    private nonisolated let loop: EventLoop
    private let listener: Descriptor
    private let handler: any HTTPHandler
    private let deadlines: HTTPDeadlines
    private let maxConnections: Int
    private let dates = HTTPDate()
    private let bell: Wakeup
    private var connections: [UInt64: HTTPConnection] = [:]
    private var lastNumber: UInt64 = 0
    private var isStopping = false
    /// Given up to take, and close, a connection when there are no descriptors left.
    private var spare: Int32

    private static let backlog: Int32 = 1024
    /// Connections accepted before other descriptors have their turn.
    private static let acceptBatch = 64
    /// After an accept that failed for want of something.
    private static let acceptPause = Duration.milliseconds(100)
    /// Descriptors kept for workers and files.
    private static let reservedDescriptors = 200
    private static let mostConnections = 16_000

    /// Starts to listen; a port of 0 takes a free one.
    package init(
        host: String, port: UInt16, on loop: EventLoop, handler: any HTTPHandler,
        deadlines: HTTPDeadlines = HTTPDeadlines(),
        descriptorLimit: Int64
    ) throws(SystemError) {
        var bound: UInt16 = 0
        let result = unsafe cs_listen(host, port, HTTPServer.backlog, &bound)
        listener = Descriptor(owning: try check(result, "listen on \(host) port \(port)"))
        self.port = bound
        self.loop = loop
        self.handler = handler
        self.deadlines = deadlines
        maxConnections = max(8, min(HTTPServer.mostConnections, Int(descriptorLimit) - HTTPServer.reservedDescriptors))
        bell = Wakeup(on: loop)
        spare = unsafe open("/dev/null", O_RDONLY | O_CLOEXEC)
    }

    /// Serves until `stop`, and then until every connection has ended.
    package func run() async {
        let registration = try? loop.add(listener.number, .read) { [weak self] _ in
            self?.assumeIsolated { $0.bell.signal() }
        }
        await withDiscardingTaskGroup { group in
            while !isStopping {
                if await !acceptBatch(into: &group) { await bell.wait() } else { await Task.yield() }
            }
            if let registration { loop.remove(registration) }
            for connection in connections.values { await connection.stop() }
        }
        close(spare)
    }

    /// Stops listening; idle connections close now, the others after their answer.
    package func stop() {
        isStopping = true
        bell.signal()
    }

    /// Accepts some connections.
    /// - Returns: whether there may be more.
    private func acceptBatch(into group: inout DiscardingTaskGroup) async -> Bool {
        for _ in 0..<HTTPServer.acceptBatch {
            var address = [CChar](repeating: 0, count: 64)
            let result = unsafe address.withUnsafeMutableBufferPointer {
                unsafe cs_accept(listener.number, $0.baseAddress, Int32($0.count))
            }
            guard result >= 0 else {
                if result == -EAGAIN { return false }
                await handleAcceptFailure(-result)
                continue
            }
            let peer = String(decoding: address.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            await add(Descriptor(owning: result), peer: peer, to: &group)
        }
        return true
    }

    private func add(_ socket: consuming Descriptor, peer: String, to group: inout DiscardingTaskGroup) async {
        if connections.count >= maxConnections { await shedOldestIdle() }
        guard connections.count < maxConnections else { return }
        lastNumber += 1
        let number = lastNumber
        let connection = HTTPConnection(
            socket: socket, peer: peer, on: loop, handler: handler, deadlines: deadlines, dates: dates)
        connections[number] = connection
        group.addTask(executorPreference: loop) { [self] in
            await connection.run()
            await forget(number)
        }
    }

    private func forget(_ number: UInt64) { connections[number] = nil }

    /// Numbers grow with age, so the smallest that idles is the oldest.
    private func shedOldestIdle() async {
        for number in connections.keys.sorted() {
            guard let connection = connections[number], await connection.isIdle else { continue }
            connections[number] = nil
            await connection.shed()
            return
        }
    }

    private func handleAcceptFailure(_ code: Int32) async {
        switch code {
        case EMFILE, ENFILE, ENOBUFS, ENOMEM:
            await shedOldestIdle()
            // Take the connection with the spare descriptor and close it, so that its client isn't left hanging.
            close(spare)
            var address: CChar = 0
            let taken = unsafe cs_accept(listener.number, &address, 1)
            if taken >= 0 { close(taken) }
            spare = unsafe open("/dev/null", O_RDONLY | O_CLOEXEC)
            _ = await Wakeup(on: loop).wait(timeout: HTTPServer.acceptPause)
        default: break  // ECONNABORTED and other faults of one connection
        }
    }
}
