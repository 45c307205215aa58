import CSystem
import Glibc

/// The one place that waits for child processes: those that were started here, and the orphans that come to this process
/// because it's a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) or PID 1.
///
/// - Note: `@unchecked Sendable` holds because it lives on the event loop: what reaches it requires the loop's thread.
package final class Reaper: @unchecked Sendable {
    /// How often orphans are looked for until none is left.
    private static let orphanRound = Duration.milliseconds(5)

    package let loop: EventLoop
    private let signals: Descriptor
    private var children: [Int32: (ChildExit) -> Void] = [:]
    private var isEndingOrphans = false
    private let onSignal: (Int32) -> Void

    /// Takes over SIGCHLD and `signals`, whose numbers are handed to `onSignal`. The signals must be blocked in every
    /// thread: make this before any other thread is started.
    package init(on loop: EventLoop, signals numbers: [Int32] = [], onSignal: @escaping (Int32) -> Void = { _ in })
        throws(SystemError)
    {
        try check(cs_become_subreaper(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self.loop = loop
        self.onSignal = onSignal
        let watched = [SIGCHLD] + numbers
        signals = Descriptor(
            owning: try check(
                unsafe watched.withUnsafeBufferPointer {
                    unsafe cs_signal_descriptor($0.baseAddress, Int32($0.count))
                },
                "signalfd"))
        _ = try loop.add(signals.number, .read) { [unowned self] _ in readSignals() }
    }

    /// Starts a program and calls `onExit` when it has ended and was waited for. Nothing else may wait for children.
    package func spawn(
        _ command: Command, descriptors: [Int32], group: Int32 = -1, onExit: @escaping (ChildExit) -> Void
    ) throws(SystemError) -> Int32 {
        loop.requireLoopThread()
        let pid = try command.spawn(descriptors: descriptors, group: group)
        children[pid] = onExit
        return pid
    }

    package func isChild(_ pid: Int32) -> Bool {
        loop.requireLoopThread()
        return children[pid] != nil
    }

    /// Ends, for good, the processes that have come here from a tree whose root was killed.
    package func endOrphans() {
        loop.requireLoopThread()
        guard !isEndingOrphans else { return }
        isEndingOrphans = true
        endOrphansOnce()
    }

    private func endOrphansOnce() {
        reap()
        let hasOrphans = ProcessTree.children(of: getpid()).contains { children[$0] == nil }
        guard hasOrphans else {
            isEndingOrphans = false
            return
        }
        ProcessTree(root: getpid()).killOnce { children[$0] != nil }
        _ = loop.schedule(after: Reaper.orphanRound) { [unowned self] in endOrphansOnce() }
    }

    private func readSignals() {
        while case let signal = cs_read_signal(signals.number), signal > 0 {
            if signal == SIGCHLD { reap() } else { onSignal(signal) }
        }
    }

    private func reap() {
        while case .ended(let exit) = ChildExit.reap() {
            // Forgotten before its owner is told: the number is free for another process now.
            children.removeValue(forKey: exit.pid)?(exit)
        }
    }
}
