import CSystem

/// Deadlines in order of time: a binary heap whose cancelled entries are dropped when they come up, or all at once when
/// they are the majority.
struct TimerQueue {
    struct Identifier: Hashable, Sendable { let number: UInt64 }

    private struct Entry {
        let deadline: Int64
        let identifier: Identifier
    }

    private var heap: [Entry] = []
    private var callbacks: [Identifier: () -> Void] = [:]
    private var lastNumber: UInt64 = 0

    var count: Int { callbacks.count }

    mutating func add(deadline: Int64, _ callback: @escaping () -> Void) -> Identifier {
        lastNumber += 1
        let identifier = Identifier(number: lastNumber)
        callbacks[identifier] = callback
        heap.append(Entry(deadline: deadline, identifier: identifier))
        siftUp(heap.count - 1)
        return identifier
    }

    mutating func cancel(_ identifier: Identifier) {
        callbacks[identifier] = nil
        guard heap.count > 64, heap.count > 2 * callbacks.count else { return }
        heap.removeAll { callbacks[$0.identifier] == nil }
        for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { siftDown(index) }
    }

    /// Takes out the callback of the first deadline that has passed, or nil.
    mutating func popDue(now: Int64) -> (() -> Void)? {
        while let first = heap.first {
            guard let callback = callbacks[first.identifier] else {
                removeFirst()
                continue
            }
            guard first.deadline <= now else { return nil }
            removeFirst()
            callbacks[first.identifier] = nil
            return callback
        }
        return nil
    }

    /// Milliseconds until the next deadline, rounded up, or -1 when there is none.
    func timeout(now: Int64) -> Int32 {
        guard let first = heap.first else { return -1 }
        let milliseconds = (max(0, first.deadline - now) + 999_999) / 1_000_000
        return Int32(min(milliseconds, Int64(Int32.max)))
    }

    private mutating func removeFirst() {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        siftDown(0)
    }

    private mutating func siftUp(_ start: Int) {
        var child = start
        while child > 0, heap[child].deadline < heap[(child - 1) / 2].deadline {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private mutating func siftDown(_ start: Int) {
        var parent = start
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < heap.count && heap[child].deadline < heap[least].deadline { least = child }
            if least == parent { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}

extension EventLoop {
    /// Names a timer, to cancel it.
    package struct TimerToken: Hashable, Sendable { let identifier: TimerQueue.Identifier }

    /// Calls `callback` on the loop's thread once `delay` has passed; never before, and not after `cancel`.
    package func schedule(after delay: Duration, _ callback: @escaping () -> Void) -> TimerToken {
        requireLoopThread()
        let (deadline, overflow) = cs_monotonic_ns().addingReportingOverflow(max(.zero, delay).nanoseconds)
        return TimerToken(identifier: timers.add(deadline: overflow ? .max : deadline, callback))
    }

    package func cancel(_ token: TimerToken) {
        requireLoopThread()
        timers.cancel(token.identifier)
    }

    /// Runs the timers that are due, and answers the milliseconds until the next one (-1: none).
    func fireTimers(now: Int64) -> Int32 {
        while let callback = timers.popDue(now: now) { callback() }
        return timers.timeout(now: now)
    }
}

extension Duration {
    /// Whole nanoseconds, saturating.
    package var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? (seconds < 0 ? .min : .max) : product &+ attoseconds / 1_000_000_000
    }

    /// Seconds with their fraction, for output.
    package var seconds: Double { Double(nanoseconds) / 1e9 }
}
