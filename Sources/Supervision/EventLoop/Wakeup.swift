/// Wakes one waiting task on the event loop: the meeting point of callbacks (a descriptor is ready, a line was logged,
/// the client left) and the async code that waits for any of them.
///
/// A signal that comes while nobody waits is kept, once. Many signals before the next wait are one.
/// - Note: `@unchecked Sendable` holds because every method requires the loop's thread.
package final class Wakeup: @unchecked Sendable {
    package enum Reason: Sendable { case signalled, timedOut }

    private let loop: EventLoop
    private var isSignalled = false
    private var waiter: CheckedContinuation<Reason, Never>?

    package init(on loop: EventLoop) { self.loop = loop }

    package func signal() {
        loop.requireLoopThread()
        guard let waiter else {
            isSignalled = true
            return
        }
        self.waiter = nil
        waiter.resume(returning: .signalled)
    }

    /// Waits for a signal, at most `timeout`. One task at a time may wait.
    @discardableResult
    package func wait(timeout: Duration? = nil) async -> Reason {
        loop.requireLoopThread()
        if isSignalled {
            isSignalled = false
            return .signalled
        }
        precondition(waiter == nil, "two tasks wait for one Wakeup")
        let timer = timeout.map { loop.schedule(after: $0) { [self] in expire() } }
        let reason = await withCheckedContinuation { waiter = $0 }
        if let timer { loop.cancel(timer) }
        return reason
    }

    private func expire() {
        let expired = waiter
        waiter = nil
        expired?.resume(returning: .timedOut)
    }
}
