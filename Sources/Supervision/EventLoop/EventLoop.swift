import CSystem
import Glibc
import Synchronization

/// One thread that waits for descriptors and timers and runs the actors and tasks that live on it.
///
/// The loop is the executor of its actors and tasks, so a message between two of them is a call, not a hop to
/// another thread. After each batch of jobs it looks at its descriptors again: a task that keeps scheduling itself
/// can't keep the sockets waiting.
///
/// - Note: `@unchecked Sendable` holds because other threads reach only `shared` (behind its mutex), `thread` (atomic)
///   and the eventfd; everything else is touched on the loop's thread alone, which `requireLoopThread` checks.
package final class EventLoop: @unchecked Sendable {
    /// What a descriptor is ready for.
    package struct Readiness: OptionSet, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }
        package static let read = Readiness(rawValue: UInt32(CS_READ))
        package static let write = Readiness(rawValue: UInt32(CS_WRITE))
        package static let hangup = Readiness(rawValue: UInt32(CS_HANGUP))
        /// Told once per change instead of for as long as it holds.
        package static let edge = Readiness(rawValue: UInt32(CS_EDGE))
    }

    /// Names a registered descriptor; it goes stale when the descriptor is removed, also if the number is used again.
    package struct Registration: Hashable, Sendable {
        let slot: UInt32
        let generation: UInt32
        fileprivate var data: UInt64 { UInt64(generation) << 32 | UInt64(slot) }
    }

    private struct Slot {
        var generation: UInt32 = 0
        var descriptor: Int32 = -1
        var handler: ((Readiness) -> Void)?
    }

    private struct Shared {
        var jobs: [UnownedJob] = []
        var waiting = false
        var stopped = false
    }

    /// Events taken from the kernel in one go.
    private static let batchSize = 256
    /// The most that is read from one descriptor before the others have their turn, in bytes.
    package static let readBudget = 64 * 1024

    private let epoll: Descriptor
    private let wakeup: Descriptor
    private let shared = Mutex(Shared())
    /// The thread that runs the loop; before that, the one that made it.
    private let thread = Atomic<UInt>(pthread_self())
    private var slots: [Slot] = []
    private var freeSlots: [UInt32] = []
    private var running: [UnownedJob] = []
    var timers = TimerQueue()
    /// Where reads land before what came is copied out in its own length.
    private var readBuffer = [UInt8](repeating: 0, count: EventLoop.readBudget)
    /// The longest time that one turn of the loop took so far since it was last asked, in nanoseconds.
    private var longestTurn: Int64 = 0

    package init() throws(SystemError) {
        epoll = Descriptor(owning: try check(cs_epoll_create(), "epoll_create1"))
        wakeup = Descriptor(owning: try check(cs_eventfd(), "eventfd"))
        try check(cs_epoll_add(epoll.number, wakeup.number, Readiness.read.rawValue, UInt64.max), "epoll_ctl")
    }

    /// Starts the loop on a thread of its own.
    package static func start() throws(SystemError) -> EventLoop {
        let loop = try EventLoop()
        var thread = pthread_t()
        let context = unsafe Unmanaged.passRetained(loop).toOpaque()
        let code = unsafe pthread_create(
            &thread, nil,
            { context in
                if let context = unsafe context {
                    unsafe Unmanaged<EventLoop>.fromOpaque(context).takeRetainedValue().run()
                }
                return nil
            }, context)
        guard code == 0 else {
            unsafe Unmanaged<EventLoop>.fromOpaque(context).release()
            throw SystemError("pthread_create", errno: code)
        }
        pthread_detach(thread)
        return loop
    }

    /// Runs until `stop()`; the calling thread is the loop's thread from here on.
    @available(*, noasync)
    package func run() {
        thread.store(pthread_self(), ordering: .releasing)
        var events = [cs_event](repeating: cs_event(), count: EventLoop.batchSize)
        var began = cs_monotonic_ns()
        while runJobs() {
            let now = cs_monotonic_ns()
            let timeout = fireTimers(now: now)
            longestTurn = max(longestTurn, now - began)
            let mayWait = shared.withLock { shared -> Bool in
                shared.waiting = shared.jobs.isEmpty && !shared.stopped
                return shared.waiting
            }
            let count = unsafe events.withUnsafeMutableBufferPointer {
                unsafe cs_epoll_wait(epoll.number, $0.baseAddress, Int32($0.count), mayWait ? timeout : 0)
            }
            precondition(count >= 0, "epoll_wait: \(SystemError.message(-count))")
            began = cs_monotonic_ns()
            if mayWait { shared.withLock { $0.waiting = false } }
            for event in events[..<Int(count)] { deliver(event) }
        }
    }

    /// Ends `run()` after the jobs that are queued now.
    package func stop() {
        shared.withLock { $0.stopped = true }
        cs_eventfd_signal(wakeup.number)
    }

    /// The longest turn since the last call, and starts the measure anew.
    package func takeLongestTurn() -> Duration {
        requireLoopThread()
        defer { longestTurn = 0 }
        return .nanoseconds(longestTurn)
    }

    package var isLoopThread: Bool { thread.load(ordering: .acquiring) == pthread_self() }

    func requireLoopThread() { precondition(isLoopThread, "called off the event loop's thread") }

    /// Runs one batch of jobs; false when the loop is to end.
    private func runJobs() -> Bool {
        let goOn = shared.withLock { shared -> Bool in
            swap(&shared.jobs, &running)
            return !(shared.stopped && running.isEmpty)
        }
        for job in running {
            unsafe job.runSynchronously(
                isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
        }
        running.removeAll(keepingCapacity: true)
        return goOn
    }

    private func deliver(_ event: cs_event) {
        if event.data == UInt64.max { return cs_eventfd_clear(wakeup.number) }
        let slot = Int(event.data & 0xffff_ffff)
        // An earlier event of this batch may have removed the descriptor, or given its slot to another.
        guard slots[slot].generation == UInt32(event.data >> 32), let handler = slots[slot].handler else { return }
        handler(Readiness(rawValue: event.ready))
    }
}

// MARK: - Descriptors

extension EventLoop {
    /// Calls `handler` on the loop's thread when `descriptor` is ready for something in `interest` or hung up.
    /// The descriptor must stay open until `remove`.
    package func add(_ descriptor: Int32, _ interest: Readiness, handler: @escaping (Readiness) -> Void)
        throws(SystemError) -> Registration
    {
        requireLoopThread()
        let index = freeSlots.popLast() ?? UInt32(slots.count)
        if index == slots.count { slots.append(Slot()) }
        let registration = Registration(slot: index, generation: slots[Int(index)].generation)
        let result = cs_epoll_add(epoll.number, descriptor, interest.rawValue, registration.data)
        guard result >= 0 else {
            freeSlots.append(index)
            throw SystemError("epoll_ctl", errno: -result)
        }
        slots[Int(index)].descriptor = descriptor
        slots[Int(index)].handler = handler
        return registration
    }

    /// Changes what the descriptor is watched for; an empty set pauses it (the kernel tells hang-ups and errors even then:
    /// a handler that gets one and can't act on it removes its registration).
    package func modify(_ registration: Registration, _ interest: Readiness) {
        requireLoopThread()
        guard let descriptor = descriptor(of: registration) else { return }
        _ = cs_epoll_modify(epoll.number, descriptor, interest.rawValue, registration.data)
    }

    /// Stops watching. Harmless when it was done before.
    package func remove(_ registration: Registration) {
        requireLoopThread()
        guard let descriptor = descriptor(of: registration) else { return }
        _ = cs_epoll_remove(epoll.number, descriptor)
        let slot = Int(registration.slot)
        slots[slot].generation &+= 1
        slots[slot].handler = nil
        slots[slot].descriptor = -1
        freeSlots.append(registration.slot)
    }

    /// What a read from a descriptor came to.
    package enum ReadResult {
        case bytes([UInt8])
        case end
        case wouldBlock
        case failed(Int32)
    }

    /// Reads what there is now, up to the budget.
    package func read(_ descriptor: borrowing Descriptor) -> ReadResult {
        requireLoopThread()
        let result = unsafe readBuffer.withUnsafeMutableBytes { unsafe descriptor.read(into: $0) }
        return switch result {
        case .bytes(let count): .bytes(Array(readBuffer[..<count]))
        case .end: .end
        case .wouldBlock: .wouldBlock
        case .failed(let code): .failed(code)
        }
    }

    private func descriptor(of registration: Registration) -> Int32? {
        let slot = slots[Int(registration.slot)]
        return slot.generation == registration.generation && slot.handler != nil ? slot.descriptor : nil
    }
}

// MARK: - Executor

extension EventLoop: SerialExecutor, TaskExecutor {
    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let wake = shared.withLock { shared -> Bool in
            shared.jobs.append(job)
            defer { shared.waiting = false }
            return shared.waiting
        }
        if wake { cs_eventfd_signal(wakeup.number) }
    }

    package func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        unsafe UnownedSerialExecutor(ordinary: self)
    }

    package func asUnownedTaskExecutor() -> UnownedTaskExecutor {
        unsafe UnownedTaskExecutor(ordinary: self)
    }

    package func checkIsolated() { requireLoopThread() }

    package func isIsolatingCurrentContext() -> Bool? { isLoopThread }
}
